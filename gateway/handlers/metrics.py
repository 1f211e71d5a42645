"""What requests are counted by.

A labelled counter costs a third of a microsecond and a histogram a whole one, which is a tenth of a redirect that is
answered off the wire. Those are counted in plain numbers, one set for each method and status, and folded into the
metrics when somebody reads them; nobody can see the difference.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from contracts.link import REDIRECT_STATUSES
from gateway.domain.redirects import Outcome

CODE_ROUTE = "/{code}"
QUICK_S = 0.0005  # the first bound of the histogram


class Tally:
    """Redirects of one method and status since the last fold: each took at most QUICK_S, all together `seconds`."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


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


DURATION = _FoldedHistogram(
    "http_server_request_duration_seconds",
    "Time from a request's headers to the last byte of its answer handed over",
    ["method", "route", "status"],
    buckets=(QUICK_S, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
REDIRECTS = _FoldedCounter("redirects", "Requests for a code, by what became of them", ["result"])
LOOKUPS = _FoldedCounter("redirect_lookup", "Where the answer to a request for a code came from", ["source"])

_TALLIES = {method: {status: Tally() for status in REDIRECT_STATUSES} for method in ("GET", "HEAD")}


def tallies_of(method: str) -> dict[int, Tally]:
    """The tallies of a method, by the byte that is the last digit of their status: no two of them share it."""
    return {ord(str(status)[-1]): tally for status, tally in _TALLIES[method].items()}


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
