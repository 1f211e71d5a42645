"""A record of clicks as the log brought it, and the hour and the day a click belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NewType

from contracts.link import LinkKey, UserId

Hour = NewType("Hour", int)  # whole hours since 1970, UTC
Day = NewType("Day", int)  # whole days since 1970, UTC

HOUR_MS = 3_600_000
DAY_HOURS = 24
_OLDEST_MS = 24 * HOUR_MS  # how much later than the click a gateway may get it to the broker
_NEWEST_MS = 5 * 60_000  # how far a gateway's clock may be ahead of the broker's


class VisitorClass(Enum):
    """Who followed the link; the value is the word in metrics."""

    HUMAN = "human"
    BOT = "bot"
    PREFETCH = "prefetch"


class Click(NamedTuple):
    """The content of a LinkAccessed. `at_ms` is the gateway's clock; `visitor` is a keyed hash, empty if unknown;
    `labels` are what people's clicks are counted by. A plain tuple, since there are ten thousand a second.
    """

    key: LinkKey
    user_id: UserId
    at_ms: int
    visitor: bytes
    visitor_class: VisitorClass
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks of one record. The first has this sequence within its spool, each of the others the next one."""

    clicks: Sequence[Click]
    spool_id: str = ""  # empty: sent without a spool
    first_sequence: int = 0


@dataclass(frozen=True, slots=True)
class Buried:
    """Clicks of a spool that came in a record which went to the dead letters."""

    spool_id: str
    first_sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What a spool's own books say of a partition [S8]. `closed`: their last word."""

    spool_id: str
    recorded: int
    dropped: int
    closed: bool


class Origin(NamedTuple):
    """Where a record stood that was replayed from the dead letters, and the broker's time of it there [A9]."""

    offset: int
    stored_ms: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record of the log. Without content it only moves the position."""

    partition: int
    offset: int
    stored_ms: int  # the broker's clock
    content: Clicks | Buried | Totals | None
    origin: Origin | None = None  # set: a replay

    @property
    def made_ms(self) -> int:
        """The broker's time near which the clicks were made: of a replay that of the record it repeats."""
        return self.stored_ms if self.origin is None else self.origin.stored_ms


class RowId(NamedTuple):
    """Which row counts a click. One partition feeds it, so that the offsets of that partition order its versions."""

    key: LinkKey
    hour: Hour
    partition: int


class TopId(NamedTuple):
    """Which row counts an account's clicks of a day by link. Its order of fields differs from that of RowId, so that
    no id of one kind equals one of the other.
    """

    partition: int
    user_id: UserId
    day: Day


AnyId = RowId | TopId


def hour_of(at_ms: int, stored_ms: int) -> Hour:
    """The hour in which a click counts as made: as the gateway says, but within [broker - 24 h, broker + 5 min].

    A wrong clock in a gateway then moves clicks by little, and a replay at any later time gives the same hour [A5].
    """
    if at_ms < stored_ms - _OLDEST_MS:
        at_ms = stored_ms - _OLDEST_MS
    elif at_ms > stored_ms + _NEWEST_MS:
        at_ms = stored_ms + _NEWEST_MS
    return Hour(at_ms // HOUR_MS)


def day_of(hour: Hour) -> Day:
    """The day an hour is in."""
    return Day(hour // DAY_HOURS)
