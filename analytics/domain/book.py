"""The counts in the owner's memory: bounded, folded record by record, flushed in rounds. A state machine without I/O.

A partition is held from `assign` to `forget`. Its rows are loaded at first touch (`missing`, `admit`) [A1], changed by
`fold` [A2, A5], and written in rounds: `begin_round` takes the checkpoint that may be stored once all rows that were
dirty at that moment are written [A3, A4].
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import Arrival, Click, Hour, RowId, VisitorClass, row_of
from analytics.domain.rows import Applied, Row, RowImage
from analytics.domain.sequences import Spool, Verdict, is_forgotten, judge
from contracts.link import LinkKey


@dataclass(slots=True)
class Tally:
    """What a fold did, for metrics."""

    counted: Counter[VisitorClass] = field(default_factory=Counter)
    verdicts: Counter[Verdict] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Round:
    """A flush round of one partition: once these rows are written, this checkpoint may be stored [A3, A4].

    `term` tells one holding of the partition from the next: of rows that were forgotten meanwhile nothing is known.
    """

    checkpoint: Checkpoint
    rows: Sequence[RowId]
    term: int


@dataclass(frozen=True, slots=True)
class Write:
    """A row to be written. `stored`: the table is known to have some version of it."""

    image: RowImage
    stored: bool


@dataclass(slots=True)
class _Partition:
    term: int
    epoch: int
    offset: int  # the next to fold
    time_ms: int  # the broker's time of the last folded record
    spools: dict[str, Spool]
    saved: int  # the offset of the checkpoint that is stored
    current_ms: int  # every record stored before this moment is folded
    ahead: tuple[int, int] | None = None  # an end of the log that was not yet reached, and when it was the end
    dirty: dict[RowId, None] = field(default_factory=dict)  # oldest first
    rows: dict[RowId, Row] = field(default_factory=dict)


class Book:
    """Rows and positions of the partitions that are held. At most about `rows_max` rows, `dirty_max` of them dirty."""

    def __init__(self, *, rows_max: int, dirty_max: int) -> None:
        self._rows_max = rows_max
        self._dirty_max = dirty_max
        self._partitions: dict[int, _Partition] = {}
        self._clean: OrderedDict[RowId, None] = OrderedDict()  # least recently changed first
        self._terms = 0

    # Ownership

    @property
    def held(self) -> Collection[int]:
        """The partitions that are ours."""
        return self._partitions.keys()

    def assign(self, checkpoint: Checkpoint) -> None:
        """This partition is ours, and folded so far. What was in memory of it is void."""
        self.forget(checkpoint.partition)
        self._terms += 1
        self._partitions[checkpoint.partition] = _Partition(
            term=self._terms,
            epoch=checkpoint.epoch,
            offset=checkpoint.offset,
            time_ms=checkpoint.time_ms,
            spools=dict(checkpoint.spools),
            saved=checkpoint.offset,
            current_ms=checkpoint.time_ms,
        )

    def forget(self, partition: int) -> None:
        """This partition is no longer ours."""
        gone = self._partitions.pop(partition, None)
        if gone is not None:
            for row_id in gone.rows:
                self._clean.pop(row_id, None)

    # Folding

    @property
    def dirty(self) -> int:
        """How many rows differ from the table."""
        return sum(len(partition.dirty) for partition in self._partitions.values())

    @property
    def clean(self) -> int:
        """How many rows are as in the table, and kept for the next click."""
        return len(self._clean)

    @property
    def full(self) -> bool:
        """Whether rows must be written before more records may be folded [A6]."""
        return self.dirty >= self._dirty_max

    @property
    def pressed(self) -> bool:
        """Whether half of the dirty rows that may be are there: time to write without waiting for the interval."""
        return self.dirty >= self._dirty_max // 2

    def dirtiest(self) -> int | None:
        """The partition with the most rows to be written."""
        return max(self._partitions, key=lambda number: len(self._partitions[number].dirty), default=None)

    def missing(self, arrivals: Iterable[Arrival]) -> Sequence[RowId]:
        """The rows that folding these records touches and that are not in memory [A1]."""
        wanted: dict[RowId, None] = {}
        for arrival in arrivals:
            partition = self._partitions.get(arrival.partition)
            if partition is None or arrival.click is None or arrival.offset < partition.offset:
                continue
            row_id = row_of(arrival.click, partition=arrival.partition, stored_ms=arrival.stored_ms)
            if row_id not in partition.rows:
                wanted[row_id] = None
        return list(wanted)

    def admit(self, row_ids: Iterable[RowId], found: Mapping[RowId, RowImage]) -> None:
        """Take in rows as a consistent read, begun after `missing`, found them; those not found are new."""
        for row_id in row_ids:
            partition = self._partitions.get(row_id.partition)
            if partition is None or row_id in partition.rows:
                continue
            partition.rows[row_id] = Row.of(found[row_id]) if row_id in found else Row(row_id)
            self._clean[row_id] = None

    def fold(self, arrivals: Iterable[Arrival]) -> Tally:
        """Count these records; all rows they touch must be in memory. Those folded before change nothing."""
        tally = Tally()
        for arrival in arrivals:
            partition = self._partitions.get(arrival.partition)
            if partition is None or arrival.offset < partition.offset:
                continue
            if arrival.click is not None:
                self._count(partition, arrival, arrival.click, tally)
            _advance(partition, arrival)
        self._evict()
        return tally

    def _count(self, partition: _Partition, arrival: Arrival, click: Click, tally: Tally) -> None:
        if click.spool_id:
            verdict = judge(partition.spools, click.spool_id, click.sequence, stored_ms=arrival.stored_ms)
            tally.verdicts[verdict] += 1
            if verdict in (Verdict.REPEAT, Verdict.STALE):
                return
            before = partition.spools.get(click.spool_id)
            partition.spools[click.spool_id] = Spool(click.sequence, before.counted + 1 if before else 1)
        row_id = row_of(click, partition=arrival.partition, stored_ms=arrival.stored_ms)
        if partition.rows[row_id].fold(click, Applied(partition.epoch, arrival.offset)):
            tally.counted[click.visitor_class] += 1
            self._clean.pop(row_id, None)
            partition.dirty.setdefault(row_id)

    def _evict(self) -> None:
        excess = sum(len(partition.rows) for partition in self._partitions.values()) - self._rows_max
        while excess > 0 and self._clean:
            row_id, _ = self._clean.popitem(last=False)
            del self._partitions[row_id.partition].rows[row_id]
            excess -= 1

    # Flushing

    def begin_round(self, partition: int) -> Round | None:
        """What a flush of this partition has to write, oldest rows first; None if all is stored, or it is not ours."""
        state = self._partitions.get(partition)
        if state is None or (not state.dirty and state.offset == state.saved):
            return None
        remembered = {
            spool_id: spool
            for spool_id, spool in state.spools.items()
            if not is_forgotten(spool_id, now_ms=state.time_ms)
        }
        state.spools = dict(remembered)
        checkpoint = Checkpoint(partition, state.epoch, state.offset, state.time_ms, remembered)
        return Round(checkpoint, tuple(state.dirty), state.term)

    def is_current(self, begun: Round) -> bool:
        """Whether the partition of a round was held all the time since it began."""
        state = self._partitions.get(begun.checkpoint.partition)
        return state is not None and state.term == begun.term

    def writes(self, row_ids: Iterable[RowId]) -> Sequence[Write]:
        """These rows as they are now, without those that need no writing any more."""
        found: list[Write] = []
        for row_id in row_ids:
            partition = self._partitions.get(row_id.partition)
            if partition is not None and row_id in partition.dirty:
                row = partition.rows[row_id]
                found.append(Write(row.image(), row.stored))
        return found

    def written(self, image: RowImage) -> None:
        """The table has this version now."""
        row = self._row(image.id)
        if row is not None:
            row.stored = True
            if row.applied == image.applied:
                self._cleaned(image.id)

    def refused(self, image: RowImage, found: RowImage | None) -> bool:
        """The table did not take this version; a consistent read found that one. Whether it holds all that ours does.

        It may: an owner that was paused writes late, and a write may have been done although its answer was lost.
        """
        partition = self._partitions.get(image.id.partition)
        row = self._row(image.id)
        if partition is not None and row is not None:
            row.stored = found is not None
            if found is not None and found.applied >= row.applied:
                partition.rows[image.id] = Row.of(found)
                self._cleaned(image.id)
        return found is not None and found.applied >= image.applied

    def saved(self, checkpoint: Checkpoint) -> None:
        """This checkpoint, or a later one, is stored."""
        partition = self._partitions.get(checkpoint.partition)
        if partition is not None and partition.epoch == checkpoint.epoch:
            partition.saved = max(partition.saved, checkpoint.offset)

    def saved_offset(self, partition: int) -> int:
        """The offset of the checkpoint that is stored of a held partition."""
        return self._partitions[partition].saved

    def _row(self, row_id: RowId) -> Row | None:
        partition = self._partitions.get(row_id.partition)
        return None if partition is None else partition.rows.get(row_id)

    def _cleaned(self, row_id: RowId) -> None:
        self._partitions[row_id.partition].dirty.pop(row_id, None)
        self._clean[row_id] = None

    # Reading

    def read(self, key: LinkKey, partition: int, hours: range) -> Sequence[RowImage]:
        """The rows in memory of a link in these hours."""
        state = self._partitions.get(partition)
        if state is None:
            return []
        ids = (RowId(key, Hour(hour), partition) for hour in hours)
        return [row.image() for row_id in ids if (row := state.rows.get(row_id)) is not None]

    def counted_until_ms(self, partition: int) -> int:
        """Every record of a held partition that the broker stored before this moment is folded."""
        return self._partitions[partition].current_ms

    def seen_end(self, partition: int, end: int, *, at_ms: int) -> None:
        """The log of this partition ended here at that moment."""
        state = self._partitions.get(partition)
        if state is None:
            return
        if state.offset >= end:
            state.current_ms = max(state.current_ms, at_ms)
            state.ahead = None
        elif state.ahead is None:
            state.ahead = (end, at_ms)


def _advance(partition: _Partition, arrival: Arrival) -> None:
    partition.offset = arrival.offset + 1
    partition.time_ms = arrival.stored_ms
    reached_ms = arrival.stored_ms
    if partition.ahead is not None and partition.offset >= partition.ahead[0]:
        reached_ms = max(reached_ms, partition.ahead[1])
        partition.ahead = None
    partition.current_ms = max(partition.current_ms, reached_ms)
