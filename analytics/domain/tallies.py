"""Counts by value that stay small: the frequent values keep counts of their own, the rest is counted together.

When a tally has grown over its limit, all values but the most frequent go into the rest. So the sum of all counts is
exact; a value's own count may lack what was counted before it last went into the rest, and is never too high. What is
kept depends on the order of clicks alone, not on when rows are written or read again [A5].
"""

from collections.abc import Iterable, MutableMapping

REST = "*"  # no link key, host, country or family has this name


def prune(counts: MutableMapping[str, int], *, keep: int, prefix: str = "") -> None:
    """Of the values with this prefix only the most frequent keep their counts; ties are decided by name."""
    rest = prefix + REST
    values = sorted(
        (value for value in counts if value.startswith(prefix) and value != rest),
        key=lambda value: (-counts[value], value),
    )
    gone = values[keep:]
    if gone:
        counts[rest] = counts.get(rest, 0) + sum(counts.pop(value) for value in gone)


def add_all(counts: MutableMapping[str, int], more: Iterable[tuple[str, int]]) -> None:
    """Add these counts, value by value."""
    for value, clicks in more:
        counts[value] = counts.get(value, 0) + clicks
