"""One spool: segments of clicks, written at one end, sent from the other. No waiting and no threads in here."""

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from gateway.adapters.spool_files import SegmentFile
from gateway.domain.spool_format import (
    CRC_BYTES,
    RECORDS_AT,
    Run,
    SegmentHeader,
    acknowledged_field,
    dropped_field,
    pack_header,
    pack_record_head,
    runs,
)
from gateway.domain.spools import SpoolTotals

_TAKE_BYTES = 400_000  # of one spool at a time: twenty of them are a large request, and work of a few milliseconds
_RECORDS_MAX = 64  # likewise
_RECORD_BYTES_MAX = 4096  # more than any click has


@dataclass(slots=True, eq=False)
class Segment:
    """A segment of a spool. `map` None: it is of a process that is gone, and not read yet. `end`: of its records."""

    header: SegmentHeader
    path: Path
    map: mmap.mmap | None
    end: int = RECORDS_AT


@dataclass(frozen=True, slots=True)
class Reading:
    """A segment of a process that is gone, as it was read: what is to be sent stands between these places."""

    map: mmap.mmap
    begin: int
    end: int


class Room:
    """Where a spool gets segments from: `ask` for one to be made ready, `take` one now (True: it was asked for).
    `waive`: the one that was asked for will not be taken."""

    def __init__(
        self, ask: Callable[[], None], take: Callable[[bool], SegmentFile | None], waive: Callable[[], None]
    ) -> None:
        self.ask = ask
        self.take = take
        self.waive = waive


class Spool:
    """A spool. `last`: the last sequence recorded; `acknowledged`: the last that the broker has. While it is not
    sealed it is appended to."""

    __slots__ = (
        "_asked", "_at", "_limit", "_map", "_now_ms", "_room", "acknowledged", "cursor", "dropped", "last",
        "partition", "sealed", "segments", "spool_id", "told", "told_at",
    )  # fmt: skip

    def __init__(self, spool_id: str, partition: int, *, room: Room, now_ms: Callable[[], int]) -> None:
        self.spool_id = spool_id
        self.partition = partition
        self.segments: deque[Segment] = deque()
        self.cursor = RECORDS_AT  # in the first segment: where what is not acknowledged begins
        self.acknowledged = self.last = self.dropped = 0
        self.sealed = False
        self.told = SpoolTotals(0, 0, closed=False)  # the totals that the broker has
        self.told_at = 0.0
        self._room = room
        self._now_ms = now_ms
        self._map: mmap.mmap | None = None
        self._at = self._limit = 0
        self._asked = False

    # Recording

    def append(self, kept: bytes, flags: int) -> bool:
        """Records a click: when this returns it outlives the process. False: there is no room [S6]."""
        sequence = self.last + 1
        data = pack_record_head(len(kept), sequence, flags) + kept
        at = self._at
        end = at + len(data) + CRC_BYTES
        if end > self._limit:
            if not self._make_room(end - at):
                self.drop()
                return False
            at = self._at
            end = at + len(data) + CRC_BYTES
        assert self._map is not None, "there is room"
        self._map[at:end] = data + crc32(data).to_bytes(CRC_BYTES, "little")
        self._at = end
        self.last = sequence
        return True

    def begin(self, file: SegmentFile) -> None:
        """Goes on in this segment."""
        if self.segments:
            self.segments[-1].end = self._at
        header = SegmentHeader(
            spool_id=self.spool_id,
            partition=self.partition,
            number=self.segments[-1].header.number + 1 if self.segments else 1,
            size=file.size,
            first_sequence=self.last + 1,
            began_ms=self._now_ms(),
        )
        data = pack_header(header)
        file.map[: len(data)] = data
        self.segments.append(Segment(header, file.path, file.map))
        self._map, self._at, self._asked = file.map, RECORDS_AT, False
        self._limit = file.size // 2  # from there on the next one is made ready
        self._note_dropped()

    def drop(self) -> None:
        """One more click was dropped."""
        self.dropped += 1
        self._note_dropped()

    def seal(self) -> None:
        """Nothing is recorded here any more."""
        if self.segments and not self.sealed:
            self.segments[-1].end = self._at
        if self._asked and not self.sealed:
            self._room.waive()
        self.sealed = True
        self._map, self._limit = None, 0

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes fit at the end, in this segment or the next."""
        if self.segments and not self._asked and not self.sealed:
            self._asked = True
            self._limit = self.segments[-1].header.size
            self._room.ask()
            if self._at + size <= self._limit:
                return True
        fresh = None if self.sealed else self._room.take(self._asked)
        if fresh is None:
            return False
        self.begin(fresh)
        return self._at + size <= fresh.size

    def _note_dropped(self) -> None:
        if self.dropped and self._map is not None:
            place, data = dropped_field(self.dropped)
            self._map[place] = data

    # Sending

    @property
    def pending(self) -> int:
        """Clicks that the broker has not acknowledged."""
        return self.last - self.acknowledged

    @property
    def unread(self) -> Segment | None:
        """The segment that must be read before anything can be sent; None: that is not why."""
        return self.segments[0] if self.segments and self.segments[0].map is None else None

    @property
    def finished(self) -> bool:
        """Whether all clicks are with the broker, and nothing more comes."""
        return self.sealed and (not self.segments or (len(self.segments) == 1 and self._at_end()))

    @property
    def told_all(self) -> bool:
        """Whether the broker has its books, or there is nothing in them."""
        return self.told == self.totals() or not (self.last or self.dropped)

    @property
    def oldest(self) -> bytes | int:
        """The first click that is not acknowledged, in a `clicks` field; or when its segment was begun (ms)."""
        first = self.segments[0]
        if first.map is None:
            return first.header.began_ms
        block = first.map[self.cursor : min(self._end(), self.cursor + _RECORD_BYTES_MAX)]
        found = runs(block, self.cursor, clicks_max=1, bytes_max=_RECORD_BYTES_MAX, runs_max=1)
        return found[0].clicks if found else first.header.began_ms

    def read(self, reading: Reading) -> None:
        """The first segment was read."""
        first = self.segments[0]
        first.map, first.end, self.cursor = reading.map, reading.end, reading.begin

    def give_up(self) -> Segment:
        """The first segment cannot be read; the counter will find a gap. Returns it."""
        left = self.segments.popleft()
        if self.finished:
            self.acknowledged = self.last
        return left

    def next_runs(self, *, clicks_max: int, bytes_max: int) -> list[Run]:
        """What is to be sent next, oldest first; empty if there is nothing, or it has to be read first."""
        if not self.pending or not self.segments or self.segments[0].map is None:
            return []
        block = self.segments[0].map[self.cursor : min(self._end(), self.cursor + _TAKE_BYTES)]
        return runs(block, self.cursor, clicks_max=clicks_max, bytes_max=bytes_max, runs_max=_RECORDS_MAX)

    def acknowledge(self, run: Run) -> list[Segment]:
        """The broker has it. Returns the segments that are no longer needed."""
        self.cursor = run.until
        self.acknowledged = run.first_sequence + run.count - 1
        first = self.segments[0]
        if first.map is not None:
            place, data = acknowledged_field(self.acknowledged)
            first.map[place] = data
        return self.pass_over()

    def pass_over(self) -> list[Segment]:
        """Leaves segments of which nothing is left to be sent, but never the last; returns them."""
        left: list[Segment] = []
        while len(self.segments) > 1 and self.segments[0].map is not None and self._at_end():
            left.append(self.segments.popleft())
            self.cursor = RECORDS_AT
        if self.finished:
            self.acknowledged = self.last
        return left

    def totals(self) -> SpoolTotals:
        """Its books."""
        return SpoolTotals(self.last, self.dropped, closed=self.finished)

    def _end(self) -> int:
        """Where the records of the first segment end by now."""
        return self._at if len(self.segments) == 1 and not self.sealed else self.segments[0].end

    def _at_end(self) -> bool:
        return self.segments[0].map is not None and self.cursor >= self._end()
