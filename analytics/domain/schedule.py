"""When which partition is flushed: each once per interval, at its own place in it, so that writes are spread [A6]."""

from collections.abc import Collection
from math import modf

_GOLDEN = 0.618_033_988_749_895  # its multiples are spread evenly over the interval, whatever partitions are held


class Schedule:
    """Due times of the partitions that are held, in seconds of a monotonic clock."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due: dict[int, float] = {}

    def due(self, held: Collection[int], now: float) -> int | None:
        """The held partition that has been due the longest; None if none is. One that is new gets its place."""
        self._due = {partition: self._due.get(partition, self._first(partition, now)) for partition in held}
        first = min(self._due, key=self._due.__getitem__, default=None)
        return first if first is not None and self._due[first] <= now else None

    def began(self, partition: int, now: float) -> None:
        """A round of this partition begins; the next is due an interval later."""
        self._due[partition] = now + self._interval_s

    def failed(self, partition: int, now: float, *, retry_s: float) -> None:
        """The round came to nothing; try again that much later."""
        self._due[partition] = now + min(retry_s, self._interval_s)

    def _first(self, partition: int, now: float) -> float:
        return now + self._interval_s * modf((partition + 1) * _GOLDEN)[0]
