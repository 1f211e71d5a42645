"""Segments for spools, made ready ahead of need by a thread of its own [S2]."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from chassis.clock import Clock
from gateway.adapters.spool import Segment
from gateway.adapters.spool_files import Budget, Folder, SegmentFile

Allocate = Callable[[Folder, int], SegmentFile]
T = TypeVar("T")

SMALL_BYTES = 64 << 10  # a spool's first segment: most partitions of a small deployment never need another
_SPARES = 2  # beside one for each segment that is half full
_RETRY_S = 1.0  # after the disk refused
_SAY_S = 60.0  # between lines in the log about one trouble
logger = logging.getLogger(__name__)


class Stock:
    """Segments that are ready. `work` is set when some should be made."""

    def __init__(self, folder: Folder, *, bytes_max: int, segment_bytes: int, allocate: Allocate, clock: Clock) -> None:
        self.folder = folder
        self.budget = Budget(bytes_max)
        self.work = asyncio.Event()
        self._segment_bytes = segment_bytes
        self._allocate = allocate
        self._clock = clock
        self._spares: deque[SegmentFile] = deque()
        self._crowded = 0  # spools whose segment is half full, and that have no other yet
        self._refused_until = self._silent_until = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    def ask(self) -> None:
        """A spool will need another segment soon."""
        self._crowded += 1
        self.work.set()

    def waive(self) -> None:
        """A spool that asked will take none any more: it ended at less than a segment."""
        self._crowded -= 1

    def take(self, asked: bool) -> SegmentFile | None:
        """A segment, now. None: the budget is used up, or the disk refuses [S6]. `asked`: it was asked for before.

        Where the thread fell behind a small one is made here and now: it stops the loop for a moment, but a click that
        is dropped is lost.
        """
        found: SegmentFile | None = None
        if self._spares:
            found = self._spares.popleft()
            self.work.set()
        elif self._clock.monotonic() >= self._refused_until:
            found = self._make(min(SMALL_BYTES, self._segment_bytes))
        if found is not None and asked:
            self._crowded -= 1
        return found

    async def make_small(self, count: int) -> list[SegmentFile | None]:
        """First segments for so many spools."""
        size = min(SMALL_BYTES, self._segment_bytes)
        return await self.aside(lambda: [self._make(size) for _ in range(count)])

    async def refill(self) -> None:
        """Returns when enough are ready, or no more are to be had."""
        while len(self._spares) < _SPARES + self._crowded:
            made = await self.aside(lambda: self._make(self._segment_bytes))
            if made is None:
                return
            self._spares.append(made)

    def put_back(self, files: Iterable[SegmentFile | None]) -> None:
        """These were not used."""
        self._spares.extend(file for file in files if file is not None)

    def release(self, segments: Iterable[Segment]) -> None:
        """These are no longer needed: their files go."""
        for segment in segments:
            self._thread.submit(self._remove, segment)

    async def aside(self, work: Callable[[], T]) -> T:
        """What the work returns, done by the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def later(self, work: Callable[[], None]) -> None:
        """Has the thread do this some time."""
        self._thread.submit(work)

    async def leave(self) -> None:
        """What was made ready and not used goes; so does the folder, if nothing is left in it."""

        def tidy() -> None:
            for spare in self._spares:
                spare.map.close()
                spare.path.unlink(missing_ok=True)
            self.folder.leave()

        await self.aside(tidy)
        self._thread.shutdown()

    def _make(self, size: int) -> SegmentFile | None:
        if not self.budget.take(size):
            self._say("the budget of the spool is used up")
            return None
        try:
            return self._allocate(self.folder, size)
        except OSError as error:
            self.budget.give(size)
            self._refused_until = self._clock.monotonic() + _RETRY_S
            self._say(f"the disk gives no segment: {error}")
            return None

    def _remove(self, segment: Segment) -> None:
        if segment.map is not None:
            segment.map.close()
        segment.path.unlink(missing_ok=True)
        self.budget.give(segment.header.size)

    def _say(self, what: str) -> None:
        if self._clock.monotonic() >= self._silent_until:
            self._silent_until = self._clock.monotonic() + _SAY_S
            logger.error("%s; clicks may be dropped", what)
