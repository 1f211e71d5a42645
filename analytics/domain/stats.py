"""From rows to the answer of a query: which hours are asked for, which versions of rows count, totals and steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from analytics.domain.clicks import HOUR_MS, Hour, RowId
from analytics.domain.rows import RowImage, Visitors, newer

RANGE_MAX_DAYS = 92
_DAY_HOURS = 24
_DEFAULT_DAYS = 30
_EARLY_HOURS = 24  # A5: a click may count as made a day before its record was stored


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


def merge(owned: Iterable[RowImage], stored: Iterable[RowImage]) -> Sequence[RowImage]:
    """Of each row the version that holds more of the log, never the sum of two [A7]; oldest hour first."""
    versions: dict[RowId, RowImage] = {row.id: row for row in stored}
    for row in owned:
        versions[row.id] = newer(row, versions.get(row.id)) or row
    return sorted(versions.values(), key=lambda row: row.id.hour)


def summarise(rows: Sequence[RowImage], granularity: Granularity) -> Stats:
    """The totals of these rows and their steps."""
    steps: dict[Hour, list[RowImage]] = {}
    for row in rows:
        start = Hour(row.id.hour - row.id.hour % granularity.value)
        steps.setdefault(start, []).append(row)
    series = [Step(start, _counts(members)) for start, members in sorted(steps.items())]
    return Stats(_counts(rows), [step for step in series if step.counts.clicks])


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
