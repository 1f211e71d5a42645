"""An account's most followed links: rows of days and partitions into one list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analytics.domain.clicks import DAY_HOURS, Day
from analytics.domain.rows import TopImage
from analytics.domain.tallies import REST, add_all
from contracts.link import LinkKey

PAGE_DEFAULT, PAGE_MAX = 20, 100


@dataclass(frozen=True, slots=True)
class Ranking:
    """Links by clicks, most first; `other`: clicks on links that had no room in a row."""

    links: Sequence[tuple[LinkKey, int]]
    other: int


def rank(rows: Iterable[TopImage]) -> Ranking:
    """The list that these rows make; ties are decided by name, so that pages do not overlap."""
    counts: dict[str, int] = {}
    for row in rows:
        add_all(counts, row.links.items())
    other = counts.pop(REST, 0)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Ranking([(LinkKey(key), clicks) for key, clicks in ranked], other)


def days_of(hours: range) -> range:
    """The days (UTC) that these hours touch."""
    if not hours:
        return range(0)
    return range(Day(hours[0] // DAY_HOURS), Day(hours[-1] // DAY_HOURS) + 1)
