"""What runs by itself: rows and checkpoints are flushed in rounds, and the ends of the log are looked at."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice

from prometheus_client import Counter, Gauge, Histogram

from analytics.domain.book import Book, Write
from analytics.domain.clicks import AnyId
from analytics.domain.rows import AnyImage
from analytics.domain.schedule import Schedule
from analytics.ports import CheckpointStore, Log, RowStore
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import DeadlineExceeded, Unavailable

ROWS = Gauge("analytics_rows", "Rows in memory: dirty (to be written) and clean (kept for the next click).", ("state",))
ROWS_WRITTEN = Counter("analytics_rows_written", "Rows flushed: taken, or refused by a newer version.", ("outcome",))
FLUSH_DURATION = Histogram(
    "analytics_flush_duration_seconds",
    "Time of a flush round of one partition, from its snapshot to its stored checkpoint.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FLUSH_FAILURES = Counter("analytics_flush_failures", "Flush rounds that the database ended.")

_BATCH = 25  # statements of one call to the table
_CALLS = 4  # at the same time: a call takes some milliseconds, most of them elsewhere
_PASSES_MAX = 3  # over rows whose state in the table was not as we thought
_TICK_S = 0.1
_RETRY_S = 1.0
_LOOK_S = 1.0
logger = logging.getLogger(__name__)


class Flusher:
    """Writes a partition's dirty rows, then its checkpoint as of the moment the round began [A3, A4]. One round at a
    time; `rows_per_s_max` caps its rate, but not while somebody waits for `flush_now`.
    """

    def __init__(self, book: Book, *, rows: RowStore, checkpoints: CheckpointStore, rows_per_s_max: int) -> None:
        self._book = book
        self._rows = rows
        self._checkpoints = checkpoints
        self._pause_s = _BATCH / rows_per_s_max
        self._turn = asyncio.Lock()
        self._hurry = asyncio.Event()

    async def flush(self, partition: int) -> None:
        """One round, at the capped rate. Raises Unavailable; what was written stays written, the checkpoint waits."""
        async with self._turn:
            begun = self._book.begin_round(partition)
            if begun is None:
                return
            with FLUSH_DURATION.time():
                await self._write(begun.rows)
                if not self._book.is_current(begun):
                    return  # taken away meanwhile: rows that were forgotten may not be in the table
                await self._checkpoints.save(begun.checkpoint)  # refused by a later one: then that is stored
            self._book.saved(begun.checkpoint)

    async def flush_now(self, partition: int) -> None:
        """One round, as fast as the table takes it; a round under way hurries up."""
        self._hurry.set()
        try:
            await self.flush(partition)
        finally:
            self._hurry.clear()

    async def _write(self, row_ids: Sequence[AnyId]) -> None:
        """Returns when the table holds of each row at least what it held when the round began."""
        left = row_ids
        for _ in range(_PASSES_MAX):
            again: list[AnyId] = []
            ids = iter(left)
            while some := list(islice(ids, _BATCH * _CALLS)):
                began = asyncio.get_running_loop().time()
                again += await self._write_some(some)
                took_s = asyncio.get_running_loop().time() - began
                await sleep_until_stop(self._hurry, max(0.0, len(some) / _BATCH * self._pause_s - took_s))
            if not again:
                return
            left = again
        raise Unavailable("unavailable", "The table keeps refusing rows.")

    async def _write_some(self, row_ids: Sequence[AnyId]) -> list[AnyId]:
        """Write these, some calls at the same time; those of them that have to be written again."""
        parts = [row_ids[start : start + _BATCH] for start in range(0, len(row_ids), _BATCH)]
        try:
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(self._write_batch(self._book.writes(part))) for part in parts]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # the others may have written: then they are refused next time
        return [row_id for call in calls for row_id in call.result()]

    async def _write_batch(self, writes: Sequence[Write]) -> Sequence[AnyId]:
        """The rows that have to be written again, since their state in the table was another than we thought."""
        taken = await self._rows.store(writes)
        refused: list[AnyImage] = []
        for write, was_taken in zip(writes, taken, strict=True):
            if was_taken:
                self._book.written(write.image)
            else:
                refused.append(write.image)
        ROWS_WRITTEN.labels("taken").inc(len(writes) - len(refused))
        ROWS_WRITTEN.labels("refused").inc(len(refused))
        if not refused:
            return []
        found = await self._rows.load([image.id for image in refused])
        return [image.id for image in refused if not self._book.refused(image, found.get(image.id))]


class FlushLoop:
    """A component: each held partition is flushed once per interval, and at once while too many rows are dirty [A6]."""

    def __init__(self, book: Book, flusher: Flusher, *, interval_s: float, clock: Clock) -> None:
        self._book = book
        self._flusher = flusher
        self._schedule = Schedule(interval_s)
        self._clock = clock
        self._pause_ends = float("-inf")  # after a failure; a database that is away is not asked again at once

    async def run(self, stop: asyncio.Event) -> None:
        """Flushes until stop; what is left then is flushed when the partitions are given back."""
        while not stop.is_set():
            now = self._clock.monotonic()
            partition = self._schedule.due(self._book.held, now)
            if partition is None and self._book.pressed and now >= self._pause_ends:
                partition = self._book.dirtiest()
            ROWS.labels("dirty").set(self._book.dirty)
            ROWS.labels("clean").set(self._book.clean)
            if partition is None or not await self._flush(partition, now):
                await sleep_until_stop(stop, _TICK_S)

    async def _flush(self, partition: int, now: float) -> bool:
        self._schedule.began(partition, now)
        try:
            await self._flusher.flush(partition)
        except (Unavailable, DeadlineExceeded) as exc:
            FLUSH_FAILURES.inc()
            logger.warning("partition %d was not flushed: %s", partition, exc.message)
            self._schedule.failed(partition, self._clock.monotonic(), retry_s=_RETRY_S)
            self._pause_ends = self._clock.monotonic() + _RETRY_S
            return False
        return True


class EndWatch:
    """A component: looks each second where the log ends, so that a quiet partition is known to be counted until now."""

    def __init__(self, book: Book, log: Log, *, clock: Clock) -> None:
        self._book = book
        self._log = log
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until stop. While the broker is away nothing is known, and `counted_until` stands still."""
        while not await sleep_until_stop(stop, _LOOK_S):
            held = list(self._book.held)
            if not held:
                continue
            at_ms = int(self._clock.now().timestamp() * 1000)
            try:
                ends = await self._log.ends(held)
            except (Unavailable, DeadlineExceeded):
                continue
            for partition, end in ends.items():
                self._book.seen_end(partition, end, at_ms=at_ms)
