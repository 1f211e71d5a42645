"""A partition that is ours: its rows in memory, how far they are folded, and the fold itself [A2, A5]."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import (
    DAY_HOURS,
    AnyId,
    Arrival,
    Buried,
    Click,
    Clicks,
    Day,
    Hour,
    RowId,
    TopId,
    Totals,
    VisitorClass,
    hour_of,
)
from analytics.domain.ledger import Ledger, Tidings
from analytics.domain.rows import AnyRow, Applied, Row, TopRow
from contracts.link import LinkKey, UserId

HUMAN, BOT, PREFETCH = VisitorClass.HUMAN, VisitorClass.BOT, VisitorClass.PREFETCH  # each look at an enum costs


@dataclass(frozen=True, slots=True)
class Accepted:
    """Clicks of one record that were new, in order."""

    partition: int
    clicks: Sequence[Click]


@dataclass(slots=True)
class Tally:
    """What a fold did, for metrics and for those who watch. A click is counted where a row took it."""

    counted: Counter[VisitorClass] = field(default_factory=Counter)
    tidings: Tidings = field(default_factory=Tidings)
    accepted: list[Accepted] = field(default_factory=list)


class Holding:
    """One partition from `assign` to `forget`. `term` tells one holding of it from the next."""

    def __init__(self, checkpoint: Checkpoint, term: int) -> None:
        self.term = term
        self.number = checkpoint.partition
        self.epoch = checkpoint.epoch
        self.offset = checkpoint.offset  # the next to fold
        self.time_ms = checkpoint.time_ms  # the broker's time of the last folded record
        self.ledger = Ledger(checkpoint.accounts)
        self.saved = checkpoint.offset  # the offset of the checkpoint that is stored
        self.current_ms = checkpoint.time_ms  # every record stored before this moment is folded
        self._ahead: tuple[int, int] | None = None  # an end of the log not yet reached, and when it was the end
        self.dirty: dict[AnyId, None] = {}  # oldest first
        self._links: dict[tuple[LinkKey, int, int], Row] = {}  # by RowId, which a plain tuple equals: cheaper to make
        self._tops: dict[tuple[int, UserId, int], TopRow] = {}  # by TopId

    # Rows

    def __len__(self) -> int:
        return len(self._links) + len(self._tops)

    def row(self, row_id: AnyId) -> AnyRow | None:
        """The row, if it is in memory."""
        return self._tops.get(row_id) if isinstance(row_id, TopId) else self._links.get(row_id)

    def put(self, row: AnyRow) -> None:
        """Take a row into memory, instead of the one that was there."""
        if isinstance(row, TopRow):
            self._tops[row.id] = row
        else:
            self._links[row.id] = row

    def drop(self, row_id: AnyId) -> None:
        """Take a row out of memory."""
        if isinstance(row_id, TopId):
            del self._tops[row_id]
        else:
            del self._links[row_id]

    def ids(self) -> Iterable[AnyId]:
        """Those of all rows in memory."""
        yield from (row.id for row in self._links.values())
        yield from (row.id for row in self._tops.values())

    # Folding

    def missing(self, arrival: Arrival, wanted: dict[AnyId, None]) -> None:
        """Add to `wanted` the rows that folding this record touches and that are not in memory [A1]."""
        if not isinstance(arrival.content, Clicks) or arrival.offset < self.offset:
            return
        number, made_ms, links, tops = self.number, arrival.made_ms, self._links, self._tops
        for key, user_id, at_ms, _, visitor_class, _ in arrival.content.clicks:
            hour = hour_of(at_ms, made_ms)
            if (key, hour, number) not in links:
                wanted[RowId(key, hour, number)] = None
            day = hour // DAY_HOURS
            if (number, user_id, day) not in tops and user_id and visitor_class is not PREFETCH:
                wanted[TopId(number, user_id, Day(day))] = None

    def fold(self, arrival: Arrival, tally: Tally) -> Sequence[AnyRow]:
        """Count a record whose rows are all in memory; returns the rows it changed. One folded before does nothing."""
        if arrival.offset < self.offset:
            return ()
        changed: list[AnyRow] = []
        content = arrival.content
        if isinstance(content, Clicks):
            clicks = self._new_ones(content, arrival, tally.tidings)
            if clicks:
                tally.accepted.append(Accepted(self.number, clicks))
                self._count(clicks, arrival, tally.counted, changed)
        elif isinstance(content, Buried):
            self.ledger.bury(content, now_ms=arrival.stored_ms)
        elif isinstance(content, Totals):
            self.ledger.note(content, now_ms=arrival.stored_ms)
        self._advance(arrival)
        return changed

    def _new_ones(self, clicks: Clicks, arrival: Arrival, tidings: Tidings) -> Sequence[Click]:
        if arrival.origin is not None:
            return self.ledger.replay(clicks, arrival.origin, tidings, now_ms=arrival.stored_ms)
        return self.ledger.take(clicks, tidings, now_ms=arrival.stored_ms)

    def _count(
        self, clicks: Sequence[Click], arrival: Arrival, counted: dict[VisitorClass, int], changed: list[AnyRow]
    ) -> None:
        """Add clicks to the rows that do not hold this record yet [A2].

        That is decided once for each row, before the record's first click in it: from then on its `applied` is this
        very object. A row that merely equals it was read from the table, and holds the whole record.
        """
        at = Applied(self.epoch, arrival.offset)
        number, made_ms, links, tops = self.number, arrival.made_ms, self._links, self._tops
        human = bot = prefetch = 0
        for key, user_id, at_ms, visitor, visitor_class, labels in clicks:
            hour = hour_of(at_ms, made_ms)
            row = links[key, hour, number]
            if row.applied is not at and row.applied < at:
                row.applied = at
                changed.append(row)
            if row.applied is at:
                if visitor_class is HUMAN:
                    row.add_human(visitor, labels)
                    human += 1
                elif visitor_class is BOT:
                    row.bot += 1
                    bot += 1
                else:
                    row.prefetches += 1
                    prefetch += 1
            if user_id and visitor_class is not PREFETCH:
                top = tops[number, user_id, hour // DAY_HOURS]
                if top.applied is not at and top.applied < at:
                    top.applied = at
                    changed.append(top)
                if top.applied is at:
                    top.add(key)
        for visitor_class, clicks_of_it in ((HUMAN, human), (BOT, bot), (PREFETCH, prefetch)):
            counted[visitor_class] += clicks_of_it

    def _advance(self, arrival: Arrival) -> None:
        self.offset = arrival.offset + 1
        self.time_ms = arrival.stored_ms
        reached_ms = arrival.stored_ms
        if self._ahead is not None and self.offset >= self._ahead[0]:
            reached_ms = max(reached_ms, self._ahead[1])
            self._ahead = None
        self.current_ms = max(self.current_ms, reached_ms)

    def seen_end(self, end: int, *, at_ms: int) -> None:
        """The log ended here at that moment."""
        if self.offset >= end:
            self.current_ms = max(self.current_ms, at_ms)
            self._ahead = None
        elif self._ahead is None:
            self._ahead = (end, at_ms)

    # Reading

    def links_of(self, key: LinkKey, hours: range) -> Sequence[Row]:
        """The rows in memory of a link in these hours."""
        found = (self._links.get((key, Hour(hour), self.number)) for hour in hours)
        return [row for row in found if row is not None]

    def tops_of(self, user_id: UserId, days: range) -> Sequence[TopRow]:
        """The rows in memory of an account's top links on these days."""
        found = (self._tops.get((self.number, user_id, Day(day))) for day in days)
        return [row for row in found if row is not None]

    def closing(self) -> Checkpoint:
        """How far it is folded now, to be stored; what is too old of the accounts is forgotten first."""
        return Checkpoint(self.number, self.epoch, self.offset, self.time_ms, self.ledger.close(now_ms=self.time_ms))
