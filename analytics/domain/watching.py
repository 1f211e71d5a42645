"""Clicks as they are shown live: what a watcher has not been told yet, bounded, and how many may watch.

Nobody may slow the counting down: who reads too slowly misses the oldest clicks, and is told how many.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from analytics.domain.clicks import Click


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher is told at once. No clicks: a heartbeat. `interrupted`: before these some may be missing, and
    some may come again, since the counts had another owner, or were gone on with from the table.
    """

    clicks: Sequence[Click] = ()
    missed: int = 0
    interrupted: bool = False
    counted_until_ms: int = 0


class Backlog:
    """What one watcher has not been told. At most `clicks_max` clicks; further ones push out the oldest."""

    def __init__(self, clicks_max: int) -> None:
        self._clicks: deque[Click] = deque(maxlen=clicks_max)
        self._missed = 0

    def put(self, click: Click) -> None:
        """A click was counted."""
        if len(self._clicks) == self._clicks.maxlen:
            self._missed += 1
        self._clicks.append(click)

    def take(self) -> tuple[Sequence[Click], int]:
        """The clicks, and how many before them were pushed out."""
        taken = list(self._clicks), self._missed
        self._clicks.clear()
        self._missed = 0
        return taken


class Seats:
    """How many watch at the same time: in all, and for one account."""

    def __init__(self, *, total_max: int, account_max: int) -> None:
        self._total_max = total_max
        self._account_max = account_max
        self._taken: Counter[str] = Counter()
        self._total = 0

    def take(self, account: str) -> bool:
        """Whether there was a seat; it is the caller's until `leave`."""
        if self._total >= self._total_max or self._taken[account] >= self._account_max:
            return False
        self._taken[account] += 1
        self._total += 1
        return True

    def leave(self, account: str) -> None:
        """A seat is free again."""
        self._total -= 1
        self._taken[account] -= 1
        if not self._taken[account]:
            del self._taken[account]
