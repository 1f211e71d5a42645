"""What requests are counted by.

A labelled counter costs a third of a microsecond and a histogram a whole one, which is a tenth of a redirect that is
answered off the wire. Those are counted in plain numbers, one set for each method and status, and folded into the
metrics when somebody reads them; nobody can see the difference.
"""

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from contracts.link import REDIRECT_STATUSES
from gateway.domain.redirects import Outcome

CODE_ROUTE = "/{code}"
QUICK_S = 0.0005  # the first bound of the histogram
_BOUNDS_S = (QUICK_S, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Tally:
    """Redirects of one method and status since the last fold: each took at most QUICK_S, all together `seconds`."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


class WaitedTally:
    """Redirects of one method and status since the last fold that had to wait for a look-up, by how long."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """None any more."""
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class _FoldedCounter(Counter):
    def collect(self) -> Iterable[Metric]:
        _fold()
        return super().collect()


class _FoldedHistogram(Histogram):
    def collect(self) -> Iterable[Metric]:
        _fold()
        return super().collect()

    def observe_quick(self, tally: Tally) -> None:
        """As many observations as the tally has, at the price of one: what `observe` does, but for the first bucket
        alone. The names are the library's own; a test of the figures would notice."""
        self._sum.inc(tally.seconds)
        self._buckets[0].inc(tally.count)

    def observe_waited(self, tally: WaitedTally) -> None:
        """The same for those that waited."""
        self._sum.inc(tally.seconds)
        for bucket, count in zip(self._buckets, tally.counts, strict=True):
            bucket.inc(count)


DURATION = _FoldedHistogram(
    "http_server_request_duration_seconds",
    "Time from a request's headers to the last byte of its answer handed over",
    ["method", "route", "status"],
    buckets=_BOUNDS_S,
)
REDIRECTS = _FoldedCounter("redirects", "Requests for a code, by what became of them", ["result"])
LOOKUPS = _FoldedCounter("redirect_lookup", "Where the answer to a request for a code came from", ["source"])

_TALLIES = {method: {status: Tally() for status in REDIRECT_STATUSES} for method in ("GET", "HEAD")}
_WAITED = {method: {status: WaitedTally() for status in REDIRECT_STATUSES} for method in ("GET", "HEAD")}


def tallies_of(method: str) -> dict[int, Tally]:
    """The tallies of a method, by the byte that is the last digit of their status: no two of them share it."""
    return {ord(str(status)[-1]): tally for status, tally in _TALLIES[method].items()}


def waited_of(method: str) -> dict[int, WaitedTally]:
    """The same of those that waited."""
    return {ord(str(status)[-1]): tally for status, tally in _WAITED[method].items()}


def observe_slow(method: str, status: int, seconds: float) -> None:
    """Counts a redirect off the wire that took longer than QUICK_S."""
    DURATION.labels(method, CODE_ROUTE, status).observe(seconds)
    _count_redirects(1)


def _count_redirects(count: int) -> None:
    REDIRECTS.labels(Outcome.REDIRECTED.value).inc(count)
    LOOKUPS.labels("near").inc(count)


def _fold() -> None:
    for method, tallies in _TALLIES.items():
        for status, tally in tallies.items():
            if tally.count:
                DURATION.labels(method, CODE_ROUTE, status).observe_quick(tally)
                _count_redirects(tally.count)
                tally.count, tally.seconds = 0, 0.0
    for method, waited in _WAITED.items():
        for status, waits in waited.items():
            if any(waits.counts):
                DURATION.labels(method, CODE_ROUTE, status).observe_waited(waits)
                waits.clear()
