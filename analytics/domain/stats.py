"""From rows to the answer of a query: which hours are asked for, which versions count, totals, steps and groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import TypeVar

from analytics.domain.clicks import HOUR_MS, Hour, RowId, TopId
from analytics.domain.labels import Dimension, group
from analytics.domain.rows import RowImage, TopImage, Visitors, newer
from analytics.domain.tallies import REST

RANGE_MAX_DAYS = 92
_DAY_HOURS = 24
_DEFAULT_DAYS = 30
_EARLY_HOURS = 24  # A5: a click may count as made a day before its record was stored
_GROUPS_MAX = 100  # of an answer; the others are told together
UNKNOWN, OTHER = "unknown", "other"
Image = TypeVar("Image", RowImage, TopImage)


class Granularity(Enum):
    """Width of a step; the value is in hours."""

    HOUR = 1
    DAY = _DAY_HOURS


@dataclass(frozen=True, slots=True)
class BadRange:
    """A range that cannot be answered: which field is at fault, and why, as a sentence."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Clicks by class, and distinct people."""

    human: int
    bot: int
    prefetches: int
    unique_visitors: int

    @property
    def clicks(self) -> int:
        """Human and bot; a prefetch is no click."""
        return self.human + self.bot


@dataclass(frozen=True, slots=True)
class Step:
    """The counts of one step of a series."""

    start: Hour
    counts: Counts


@dataclass(frozen=True, slots=True)
class Group:
    """People's clicks that share a value."""

    value: str
    clicks: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What a query is answered with; steps without a click are left out, the oldest is first."""

    total: Counts
    series: Sequence[Step]


def decide_hours(*, from_ms: int | None, until_ms: int | None, now_ms: int) -> range | BadRange:
    """The hours of a query: from the hour that `from` is in to the one before `until`; by default the last 30 days.

    `until` may lie in the future; then the hour after now is included, since gateways' clocks may be ahead.
    """
    until = now_ms + HOUR_MS if until_ms is None else until_ms
    first = until - _DEFAULT_DAYS * _DAY_HOURS * HOUR_MS if from_ms is None else from_ms
    if first < 0:
        return BadRange("from", "The range begins before 1970.")
    if first >= until:
        return BadRange("until", "The range ends before it begins.")
    hours = range(first // HOUR_MS, -(-until // HOUR_MS))
    if until - first > RANGE_MAX_DAYS * _DAY_HOURS * HOUR_MS:
        return BadRange("from", f"The range is longer than {RANGE_MAX_DAYS} days.")
    return hours


def possible_hours(hours: range, *, created_ms: int, now_ms: int) -> range:
    """Those of the hours in which the link can have been clicked: not before it was made, not after now."""
    first = max(hours.start, created_ms // HOUR_MS - _EARLY_HOURS)
    return range(first, max(first, min(hours.stop, now_ms // HOUR_MS + 2)))


def decide_zone(zone: tzinfo, hours: range) -> BadRange | None:
    """What is wrong with days of this zone in these hours; None: nothing. Counts are kept by UTC hours, so a day that
    begins at another minute (India, Nepal, Lord Howe in winter) cannot be told.
    """
    looks = [*hours[::6], *hours[-1:]]  # no zone changes its offset and changes it back within six hours
    try:
        odd = any((_local(Hour(hour), zone).utcoffset() or timedelta()) % timedelta(hours=1) for hour in looks)
    except (OverflowError, ValueError):  # the last hours of the year 9999 are in the next one there
        return BadRange("until", "The range ends behind the last year that a calendar of this zone has.")
    if odd:
        return BadRange("time_zone", "Days of this zone do not begin with an hour of UTC; ask for hours instead.")
    return None


def merge(owned: Iterable[Image], stored: Iterable[Image]) -> Sequence[Image]:
    """Of each row the version that holds more of the log, never the sum of two [A7]; in no order."""
    versions: dict[RowId | TopId, Image] = {row.id: row for row in stored}
    for row in owned:
        versions[row.id] = newer(row, versions.get(row.id)) or row
    return list(versions.values())


def summarise(rows: Sequence[RowImage], granularity: Granularity, zone: tzinfo = UTC) -> Stats:
    """The totals of these rows and their steps; a day is one of the zone."""
    steps: dict[Hour, list[RowImage]] = {}
    for row in rows:
        start = row.id.hour if granularity is Granularity.HOUR else _day_start(row.id.hour, zone)
        steps.setdefault(start, []).append(row)
    series = [Step(start, _counts(members)) for start, members in sorted(steps.items())]
    return Stats(_counts(rows), [step for step in series if step.counts.clicks])


def groups(rows: Sequence[RowImage], dimension: Dimension) -> Sequence[Group]:
    """People's clicks by value, most first, at most a hundred values and OTHER; their sum is all of people's clicks.
    Of clicks that were counted before there were dimensions nothing is known.
    """
    counts = dict(group((row.labels for row in rows), dimension))
    rest = counts.pop(REST, 0) + counts.pop(OTHER, 0)  # anybody can say to come from http://other/
    unknown = counts.pop("", 0) + counts.pop(UNKNOWN, 0)
    unlabelled = sum(row.human for row in rows) - sum(counts.values()) - rest - unknown
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = [Group(value, clicks) for value, clicks in ranked[:_GROUPS_MAX]]
    more = rest + sum(clicks for _, clicks in ranked[_GROUPS_MAX:])
    found += [Group(value, clicks) for value, clicks in ((UNKNOWN, unknown + unlabelled), (OTHER, more)) if clicks]
    return sorted(found, key=lambda each: -each.clicks)


def _day_start(hour: Hour, zone: tzinfo) -> Hour:
    """The hour with which the day of an hour begins."""
    if zone is UTC:
        return Hour(hour - hour % _DAY_HOURS)
    # A midnight that is skipped stands for the moment of the change, one that comes twice for its first (PEP 495).
    midnight = _local(hour, zone).replace(hour=0, minute=0, fold=0)
    return Hour(int(midnight.timestamp()) // 3600)


def _local(hour: Hour, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(hour * 3600, zone)


def _counts(rows: Iterable[RowImage]) -> Counts:
    visitors = Visitors()
    human = bot = prefetches = 0
    for row in rows:
        human += row.human
        bot += row.bot
        prefetches += row.prefetches
        if row.human:
            visitors.add(row.visitors)
    return Counts(human, bot, prefetches, visitors.estimate())
