"""Which clicks of a gateway's spool are new [S4]: sequences are dense, so a repeat and a gap can both be told.

A gateway that was killed sends again what it cannot know to have arrived: the same clicks, on the same partition, in
the same order, under the same sequences, at other offsets, and perhaps in records that begin elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from analytics.domain.clicks import Totals

SPOOL_AGE_MAX_MS = 7 * 86_400_000  # older ones are neither sent nor remembered [S5]
_MISSING_MAX = 20  # ranges; of more the oldest are no longer told apart, and never counted

Range = tuple[int, int]  # first and last sequence


@dataclass(frozen=True, slots=True)
class Spool:
    """What is known of a spool on a partition [A10]. `last`: the highest sequence that arrived, each of which was
    `counted` or is `missing`; `buried` of the missing ones are in dead letters, the others never arrived. `recorded`,
    `dropped` and `closed` are what the spool's own books said last [S8].
    """

    last: int = 0
    counted: int = 0
    repeats: int = 0
    missing: tuple[Range, ...] = ()
    buried: int = 0
    recorded: int = 0
    dropped: int = 0
    closed: bool = False

    @property
    def gaps(self) -> int:
        """Clicks that were recorded, and whose successors have arrived, but which never did themselves."""
        return self.last - self.counted - self.buried

    @property
    def balanced(self) -> bool:
        """Whether every click that this spool recorded was counted. A spool that never told its totals is balanced
        when every sequence up to the last was counted.
        """
        return self.counted == max(self.last, self.recorded)

    @property
    def finished(self) -> bool:
        """Whether nothing but repeats can come of it any more."""
        return self.closed and self.balanced


class Judgement(NamedTuple):
    """What `judge` says of clicks that arrived: the first `repeats` of them were counted (or missed) before, and before
    the others `gap` clicks never arrived.
    """

    repeats: int
    gap: int


def judge(spool: Spool, first: int, count: int) -> Judgement:
    """What clicks with the sequences from `first` on are, after those up to the last one that arrived [S4]."""
    return Judgement(min(count, max(0, spool.last - first + 1)), max(0, first - spool.last - 1))


def taken(spool: Spool, first: int, count: int) -> Spool:
    """The spool with these clicks, the new ones of which are counted."""
    repeats, gap = judge(spool, first, count)
    return replace(
        spool,
        last=max(spool.last, first + count - 1),
        counted=spool.counted + count - repeats,
        repeats=spool.repeats + repeats,
        missing=_with(spool.missing, (spool.last + 1, spool.last + gap)),
    )


def buried(spool: Spool, first: int, count: int) -> Spool:
    """The spool with these clicks, the new ones of which are in a dead letter."""
    repeats, gap = judge(spool, first, count)
    missing = _with(spool.missing, (spool.last + 1, spool.last + gap))
    end = first + count - 1
    return replace(
        spool,
        last=max(spool.last, end),
        buried=spool.buried + count - repeats,
        repeats=spool.repeats + repeats,
        missing=_with(missing, (first + repeats, end)),
    )


def replayed(spool: Spool, first: int, count: int) -> tuple[Spool, Sequence[int]]:
    """The spool with these clicks of a dead letter, and which of them are counted now, by their place: exactly those
    that were missing, so that none counts twice although sequences are not judged [A9]. What lies beyond the last
    sequence is taken for new; the clicks in between stay missing.
    """
    spool = replace(spool, missing=_with(spool.missing, (spool.last + 1, first + count - 1)))
    last = max(spool.last, first + count - 1)
    found = [place for place in range(count) if any(low <= first + place <= high for low, high in spool.missing)]
    left = spool.missing
    for place in found:
        left = _without(left, first + place)
    return (
        replace(
            spool,
            last=last,
            counted=spool.counted + len(found),
            repeats=spool.repeats + count - len(found),
            missing=left,
            buried=max(0, spool.buried - len(found)),
        ),
        found,
    )


def told(spool: Spool, totals: Totals) -> Spool:
    """The spool with what its books say. They only grow, so that records of them may come twice or late."""
    return replace(
        spool,
        recorded=max(spool.recorded, totals.recorded),
        dropped=max(spool.dropped, totals.dropped),
        closed=spool.closed or totals.closed,
    )


@lru_cache(maxsize=4096)
def made_ms(spool_id: str) -> int:
    """When a spool was made, in ms since 1970, by its UUIDv7.

    Raises:
        ValueError: the id is no UUID.
    """
    return UUID(spool_id).int >> 80


def is_forgotten(spool_id: str, *, now_ms: int) -> bool:
    """Whether a spool is too old to be remembered [S5].

    Raises:
        ValueError: the id is no UUID.
    """
    return now_ms - made_ms(spool_id) > SPOOL_AGE_MAX_MS


def _with(ranges: tuple[Range, ...], more: Range) -> tuple[Range, ...]:
    """These ranges and one behind them; one that is empty adds nothing."""
    if more[0] > more[1]:
        return ranges
    if ranges and ranges[-1][1] + 1 == more[0]:
        return (*ranges[:-1], (ranges[-1][0], more[1]))
    return (*ranges, more)[-_MISSING_MAX:]


def _without(ranges: tuple[Range, ...], sequence: int) -> tuple[Range, ...]:
    """These ranges without one sequence."""
    left: list[Range] = []
    for low, high in ranges:
        if low <= sequence <= high:
            left += [part for part in ((low, sequence - 1), (sequence + 1, high)) if part[0] <= part[1]]
        else:
            left.append((low, high))
    return tuple(left[-_MISSING_MAX:])
