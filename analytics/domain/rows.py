"""Rows of counts: what a click adds to one, and which of two versions of a row is the newer.

Visitors are a HyperLogLog sketch (Flajolet et al. 2007) of Apache DataSketches: HLL_4, 2^10 registers, 552 bytes, 3 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import datasketches

from analytics.domain.clicks import RowId, TopId
from analytics.domain.labels import count_labels
from analytics.domain.tallies import prune
from contracts.link import LinkKey

_LG_REGISTERS = 10
_KIND = datasketches.tgt_hll_type.HLL_4
_LINKS_MAX = 400  # of a row of top links; the most frequent half of them is kept then
_LINKS_KEPT = 200


class Applied(NamedTuple):
    """Up to where the log is in a row. Every version of a row is the fold of a prefix of its partition's log, so the
    greater one holds all that the lesser does. A log that was created anew begins a new epoch, at offset 0 [A8].
    """

    epoch: int
    offset: int


NOTHING = Applied(0, -1)


@dataclass(frozen=True, slots=True)
class RowImage:
    """A version of a row, as it is stored and sent. `visitors` is a compact HLL sketch, `labels` the clicks of people
    by label (analytics.domain.labels); rows of before there were labels have fewer labels than clicks.
    """

    id: RowId
    applied: Applied
    human: int
    bot: int
    prefetches: int
    visitors: bytes
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopImage:
    """A version of a row of an account's top links: clicks of people and bots by link key; tallies.REST: of the links
    that had no room.
    """

    id: TopId
    applied: Applied
    links: Mapping[str, int]


AnyImage = RowImage | TopImage
Image = TypeVar("Image", RowImage, TopImage)


class Row:
    """A row in the owner's memory. `stored`: the table is known to have some version of it."""

    __slots__ = ("_labels", "_visitors", "applied", "bot", "human", "id", "prefetches", "stored")

    def __init__(self, row_id: RowId) -> None:
        self.id = row_id
        self.applied = NOTHING
        self.human = 0
        self.bot = 0
        self.prefetches = 0
        self.stored = False
        self._labels: dict[str, int] = {}
        self._visitors: datasketches.hll_sketch | None = None  # made for the first visitor

    @classmethod
    def of(cls, image: RowImage) -> "Row":
        """The row that a stored version goes on from."""
        row = cls(image.id)
        row.applied = image.applied
        row.human, row.bot, row.prefetches = image.human, image.bot, image.prefetches
        row.stored = True
        row._labels = dict(image.labels)
        if image.visitors != _NOBODY:
            row._visitors = datasketches.hll_sketch.deserialize(image.visitors)
        return row

    def add_human(self, visitor: bytes, labels: tuple[str, ...]) -> None:
        """Count a person's click; that the row does not hold it yet is the caller's to know [A2]. Bots and prefetches
        are numbers that the caller counts up.
        """
        self.human += 1
        count_labels(self._labels, labels)
        if visitor:
            if self._visitors is None:
                self._visitors = new_sketch()
            self._visitors.update(visitor.hex())

    def image(self) -> RowImage:
        """The row as it is now."""
        visitors = _NOBODY if self._visitors is None else self._visitors.serialize_compact()
        return RowImage(self.id, self.applied, self.human, self.bot, self.prefetches, visitors, self._labels.copy())


class TopRow:
    """A row of an account's top links in the owner's memory."""

    __slots__ = ("_links", "applied", "id", "stored")

    def __init__(self, row_id: TopId) -> None:
        self.id = row_id
        self.applied = NOTHING
        self.stored = False
        self._links: dict[str, int] = {}

    @classmethod
    def of(cls, image: TopImage) -> "TopRow":
        """The row that a stored version goes on from."""
        row = cls(image.id)
        row.applied = image.applied
        row.stored = True
        row._links = dict(image.links)
        return row

    def add(self, key: LinkKey) -> None:
        """Count a click on a link; that the row does not hold it yet is the caller's to know [A2]."""
        links = self._links
        if key in links:
            links[key] += 1
        else:
            links[key] = 1
            if len(links) > _LINKS_MAX:
                prune(links, keep=_LINKS_KEPT)

    def image(self) -> TopImage:
        """The row as it is now."""
        return TopImage(self.id, self.applied, self._links.copy())


AnyRow = Row | TopRow


def row_from_image(image: AnyImage) -> AnyRow:
    """The row that a stored version goes on from."""
    return Row.of(image) if isinstance(image, RowImage) else TopRow.of(image)


def new_sketch() -> datasketches.hll_sketch:
    """An empty sketch of visitors."""
    return datasketches.hll_sketch(_LG_REGISTERS, _KIND)


_NOBODY: bytes = new_sketch().serialize_compact()


def newer(first: Image | None, second: Image | None) -> Image | None:
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
