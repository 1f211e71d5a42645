"""Rows of counts: what a click adds to one, and which of two versions of a row is the newer.

Visitors are a HyperLogLog sketch (Flajolet et al. 2007) of Apache DataSketches: HLL_4, 2^10 registers, 552 bytes, 3 %.
"""

from dataclasses import dataclass
from typing import NamedTuple

import datasketches

from analytics.domain.clicks import Click, RowId, VisitorClass

_LG_REGISTERS = 10
_KIND = datasketches.tgt_hll_type.HLL_4


class Applied(NamedTuple):
    """Up to where the log is in a row. Every version of a row is the fold of a prefix of its partition's log, so the
    greater one holds all that the lesser does. A log that was created anew begins a new epoch, at offset 0 [A8].
    """

    epoch: int
    offset: int


NOTHING = Applied(0, -1)


@dataclass(frozen=True, slots=True)
class RowImage:
    """A version of a row, as it is stored and sent. `visitors` is a compact HLL sketch."""

    id: RowId
    applied: Applied
    human: int
    bot: int
    prefetches: int
    visitors: bytes


class Row:
    """A row in the owner's memory. `stored`: the table is known to have some version of it."""

    __slots__ = ("_visitors", "applied", "bot", "human", "id", "prefetches", "stored")

    def __init__(self, row_id: RowId) -> None:
        self.id = row_id
        self.applied = NOTHING
        self.human = 0
        self.bot = 0
        self.prefetches = 0
        self.stored = False
        self._visitors = new_sketch()

    @classmethod
    def of(cls, image: RowImage) -> "Row":
        """The row that a stored version goes on from."""
        row = cls(image.id)
        row.applied = image.applied
        row.human, row.bot, row.prefetches = image.human, image.bot, image.prefetches
        row.stored = True
        row._visitors = datasketches.hll_sketch.deserialize(image.visitors)
        return row

    def fold(self, click: Click, at: Applied) -> bool:
        """Add a click that stands at this place of the log; False if the row holds it already [A2]."""
        if at <= self.applied:
            return False
        match click.visitor_class:
            case VisitorClass.HUMAN:
                self.human += 1
                if click.visitor:
                    self._visitors.update(click.visitor.hex())
            case VisitorClass.BOT:
                self.bot += 1
            case VisitorClass.PREFETCH:
                self.prefetches += 1
        self.applied = at
        return True

    def image(self) -> RowImage:
        """The row as it is now."""
        return RowImage(
            self.id, self.applied, self.human, self.bot, self.prefetches, self._visitors.serialize_compact()
        )


def new_sketch() -> datasketches.hll_sketch:
    """An empty sketch of visitors."""
    return datasketches.hll_sketch(_LG_REGISTERS, _KIND)


def newer(first: RowImage | None, second: RowImage | None) -> RowImage | None:
    """The version that holds more of the log; they are never added, since both hold the same clicks [A7]."""
    if first is None or second is None:
        return first or second
    return first if first.applied >= second.applied else second


class Visitors:
    """The union of sketches: distinct visitors over several rows."""

    def __init__(self) -> None:
        self._union = datasketches.hll_union(_LG_REGISTERS)

    def add(self, sketch: bytes) -> None:
        """Take in the visitors of a row."""
        self._union.update(datasketches.hll_sketch.deserialize(sketch))

    def estimate(self) -> int:
        """How many distinct visitors there were, about."""
        estimate: float = self._union.get_estimate()
        return round(estimate)
