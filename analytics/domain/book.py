"""The counts in the owner's memory: bounded, folded record by record, flushed in rounds. A state machine without I/O.

A partition is held from `assign` to `forget`. Its rows are loaded at first touch (`missing`, `admit`) [A1], changed by
`fold` [A2, A5], and written in rounds: `begin_round` takes the checkpoint that may be stored once all rows that were
dirty at that moment are written [A3, A4].
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import AnyId, Arrival, RowId
from analytics.domain.holding import Holding, Tally
from analytics.domain.ledger import Accounts
from analytics.domain.rows import AnyImage, Row, RowImage, TopImage, TopRow, row_from_image
from contracts.link import LinkKey, UserId


@dataclass(frozen=True, slots=True)
class Round:
    """A flush round of one partition: once these rows are written, this checkpoint may be stored [A3, A4].

    `term` tells one holding of the partition from the next: of rows that were forgotten meanwhile nothing is known.
    """

    checkpoint: Checkpoint
    rows: Sequence[AnyId]
    term: int


@dataclass(frozen=True, slots=True)
class Write:
    """A row to be written. `stored`: the table is known to have some version of it."""

    image: AnyImage
    stored: bool


class Book:
    """Rows and positions of the partitions that are held. At most about `rows_max` rows, `dirty_max` of them dirty."""

    def __init__(self, *, rows_max: int, dirty_max: int) -> None:
        self._rows_max = rows_max
        self._dirty_max = dirty_max
        self._partitions: dict[int, Holding] = {}
        self._clean: OrderedDict[AnyId, None] = OrderedDict()  # least recently changed first
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
        self._partitions[checkpoint.partition] = Holding(checkpoint, self._terms)

    def term(self, partition: int) -> int | None:
        """The number of this holding of a partition, by which it is told from later ones; None: it is not ours."""
        state = self._partitions.get(partition)
        return None if state is None else state.term

    def forget(self, partition: int) -> None:
        """This partition is no longer ours."""
        gone = self._partitions.pop(partition, None)
        if gone is not None:
            for row_id in gone.ids():
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

    def is_folded(self, partition: int, offset: int) -> bool:
        """Whether folding the record there would do nothing: it was done, or the partition is not ours."""
        state = self._partitions.get(partition)
        return state is None or offset < state.offset

    def missing(self, arrivals: Iterable[Arrival]) -> Sequence[AnyId]:
        """The rows that folding these records touches and that are not in memory [A1]."""
        wanted: dict[AnyId, None] = {}
        for arrival in arrivals:
            partition = self._partitions.get(arrival.partition)
            if partition is not None:
                partition.missing(arrival, wanted)
        return list(wanted)

    def admit(self, row_ids: Iterable[AnyId], found: Mapping[AnyId, AnyImage]) -> None:
        """Take in rows as a consistent read, begun after `missing`, found them; those not found are new."""
        for row_id in row_ids:
            partition = self._partitions.get(row_id.partition)
            if partition is None or partition.row(row_id) is not None:
                continue
            partition.put(row_from_image(found[row_id]) if row_id in found else _new_row(row_id))
            self._clean[row_id] = None

    def fold(self, arrivals: Iterable[Arrival]) -> Tally:
        """Count these records; all rows they touch must be in memory. Those folded before change nothing."""
        tally = Tally()
        for arrival in arrivals:
            partition = self._partitions.get(arrival.partition)
            if partition is None:
                continue
            for row in partition.fold(arrival, tally):
                self._clean.pop(row.id, None)
                partition.dirty[row.id] = None  # one that was dirty keeps its place
        self._evict()
        return tally

    def _evict(self) -> None:
        excess = sum(len(partition) for partition in self._partitions.values()) - self._rows_max
        while excess > 0 and self._clean:
            row_id, _ = self._clean.popitem(last=False)
            self._partitions[row_id.partition].drop(row_id)
            excess -= 1

    # Flushing

    def begin_round(self, partition: int) -> Round | None:
        """What a flush of this partition has to write, oldest rows first; None if all is stored, or it is not ours."""
        state = self._partitions.get(partition)
        if state is None or (not state.dirty and state.offset == state.saved):
            return None
        return Round(state.closing(), tuple(state.dirty), state.term)

    def is_current(self, begun: Round) -> bool:
        """Whether the partition of a round was held all the time since it began."""
        state = self._partitions.get(begun.checkpoint.partition)
        return state is not None and state.term == begun.term

    def writes(self, row_ids: Iterable[AnyId]) -> Sequence[Write]:
        """These rows as they are now, without those that need no writing any more."""
        found: list[Write] = []
        for row_id in row_ids:
            partition = self._partitions.get(row_id.partition)
            if partition is not None and row_id in partition.dirty:
                row = partition.row(row_id)
                if row is not None:
                    found.append(Write(row.image(), row.stored))
        return found

    def written(self, image: AnyImage) -> None:
        """The table has this version now."""
        partition = self._partitions.get(image.id.partition)
        row = None if partition is None else partition.row(image.id)
        if row is not None:
            row.stored = True
            if row.applied == image.applied:
                self._cleaned(image.id)

    def refused(self, image: AnyImage, found: AnyImage | None) -> bool:
        """The table did not take this version; a consistent read found that one. Whether it holds all that ours does.

        It may: an owner that was paused writes late, and a write may have been done although its answer was lost.
        """
        partition = self._partitions.get(image.id.partition)
        row = None if partition is None else partition.row(image.id)
        if partition is not None and row is not None:
            row.stored = found is not None
            if found is not None and found.applied >= row.applied:
                partition.put(row_from_image(found))
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

    def _cleaned(self, row_id: AnyId) -> None:
        self._partitions[row_id.partition].dirty.pop(row_id, None)
        self._clean[row_id] = None

    # Reading

    def read(self, key: LinkKey, partition: int, hours: range) -> Sequence[RowImage]:
        """The rows of a link in these hours that the table does not hold as they are. The others are left out: they are
        read there in any case, and a link that is clicked each hour for months has more than fits into a message.
        """
        state = self._partitions.get(partition)
        return [] if state is None else [row.image() for row in state.links_of(key, hours) if row.id in state.dirty]

    def read_tops(self, user_id: UserId, partition: int, days: range) -> Sequence[TopImage]:
        """The same of an account's top links on these days."""
        state = self._partitions.get(partition)
        return [] if state is None else [row.image() for row in state.tops_of(user_id, days) if row.id in state.dirty]

    def accounts(self, partition: int) -> Accounts:
        """The accounts of a held partition's spools as of now [A10]."""
        return self._partitions[partition].ledger.accounts()

    def counted_until_ms(self, partition: int) -> int:
        """Every record of a held partition that the broker stored before this moment is folded."""
        return self._partitions[partition].current_ms

    def seen_end(self, partition: int, end: int, *, at_ms: int) -> None:
        """The log of this partition ended here at that moment."""
        state = self._partitions.get(partition)
        if state is not None:
            state.seen_end(end, at_ms=at_ms)


def _new_row(row_id: AnyId) -> Row | TopRow:
    return Row(row_id) if isinstance(row_id, RowId) else TopRow(row_id)
