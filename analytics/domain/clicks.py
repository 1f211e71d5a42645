"""A click as the log brought it, and the hour it belongs to."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NewType

from contracts.link import LinkKey

Hour = NewType("Hour", int)  # whole hours since 1970, UTC

HOUR_MS = 3_600_000
_OLDEST_MS = 24 * HOUR_MS  # how much later than the click a gateway may get it to the broker
_NEWEST_MS = 5 * 60_000  # how far a gateway's clock may be ahead of the broker's


class VisitorClass(Enum):
    """Who followed the link; the value is the word in metrics."""

    HUMAN = "human"
    BOT = "bot"
    PREFETCH = "prefetch"


@dataclass(frozen=True, slots=True)
class Click:
    """The content of a LinkAccessed. `at_ms` is the gateway's clock; `visitor` is a keyed hash, empty if unknown."""

    key: LinkKey
    at_ms: int
    visitor: bytes
    visitor_class: VisitorClass
    spool_id: str = ""  # empty: sent without a spool
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record of the log. Without a click it only moves the position: its content was not a click."""

    partition: int
    offset: int
    stored_ms: int  # the broker's clock
    click: Click | None


class RowId(NamedTuple):
    """Which row counts a click. One partition feeds it, so that the offsets of that partition order its versions."""

    key: LinkKey
    hour: Hour
    partition: int


def counted_ms(click: Click, stored_ms: int) -> int:
    """When a click counts as made, in ms since 1970: as the gateway says, but within [broker - 24 h, broker + 5 min].

    A wrong clock in a gateway then moves clicks by little, and a replay at any later time gives the same hour [A5].
    """
    return min(max(click.at_ms, stored_ms - _OLDEST_MS), stored_ms + _NEWEST_MS)


def row_of(click: Click, *, partition: int, stored_ms: int) -> RowId:
    """The row that counts a click which the broker stored at that time."""
    return RowId(click.key, Hour(counted_ms(click, stored_ms) // HOUR_MS), partition)
