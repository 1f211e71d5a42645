"""What the spools show of themselves; counted when somebody looks, since recording a click has no time for it."""

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import Counter, Gauge, Metric


class Shown(Protocol):
    """What can be asked of spools at any time."""

    def recorded(self) -> int:
        """Clicks recorded in spools since this was asked last."""

    def clicks(self) -> int:
        """Clicks that the broker has not acknowledged."""

    def age_s(self) -> float:
        """Age of the oldest of them; 0 without one."""

    def bytes(self) -> int:
        """Bytes of all segments on disk."""

    def segments(self) -> int:
        """How many segments the spools have."""


class _CountedWhenAsked(Counter):
    """A counter that is brought up to date when it is read."""

    def collect(self) -> Iterable[Metric]:
        """The counter, up to date."""
        if _shown is not None:
            self.inc(_shown.recorded())
        return super().collect()


RECORDED = _CountedWhenAsked("clicks_recorded", "Clicks that were recorded in a spool")
DROPPED = Counter("clicks_dropped", "Clicks that were answered and not recorded: no room, or too late [S6]")
OUTDATED = Counter("clicks_outdated", "Recorded clicks that were thrown away: not sent within seven days [S5]")
_shown: Shown | None = None


QUEUED = Gauge("clicks_queued", "Clicks in spools that the broker has not acknowledged yet")
QUEUED_AGE = Gauge("clicks_queued_age_seconds", "Age of the oldest of them")
BYTES = Gauge("spool_bytes", "Disk that the segments of all spools take")
SEGMENTS = Gauge("spool_segments", "Segments that spools have")
QUEUED.set_function(lambda: _shown.clicks() if _shown is not None else 0)
QUEUED_AGE.set_function(lambda: _shown.age_s() if _shown is not None else 0)
BYTES.set_function(lambda: _shown.bytes() if _shown is not None else 0)
SEGMENTS.set_function(lambda: _shown.segments() if _shown is not None else 0)


def show(spools: Shown | None) -> None:
    """From now on these spools are shown; None: they end."""
    global _shown  # noqa: PLW0603 (a process has one gateway, and metrics are the process')
    if _shown is not None:
        RECORDED.inc(_shown.recorded())
    _shown = spools
