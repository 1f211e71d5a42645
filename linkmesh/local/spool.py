"""How many clicks wait between the gateway and Kafka: it says so in its metrics."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from linkmesh.local.probes import http_get

_FIGURE = re.compile(
    r"^(clicks_queued|clicks_queued_age_seconds|clicks_dropped_total|spool_bytes) ([0-9.e+-]+)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Spooled:
    """What the click spool holds. `dropped`: clicks lost since the gateway started."""

    clicks: int
    age_seconds: float
    dropped: int
    size_bytes: int

    def sentence(self) -> str:
        """For a person."""
        lost = f"; {self.dropped} clicks were dropped" if self.dropped else ""
        if not self.clicks:
            return f"click spool empty{lost}"
        plural = "" if self.clicks == 1 else "s"
        return f"click spool {self.clicks} click{plural}, the oldest {self.age_seconds:.1f} s old{lost}"


def spooled_in(exposition: str) -> Spooled | None:
    """What a process' /metrics say; None: it has no spool."""
    found = {name: float(value) for name, value in _FIGURE.findall(exposition)}
    if "clicks_queued" not in found:
        return None
    return Spooled(
        clicks=int(found["clicks_queued"]),
        age_seconds=found.get("clicks_queued_age_seconds", 0.0),
        dropped=int(found.get("clicks_dropped_total", 0)),
        size_bytes=int(found.get("spool_bytes", 0)),
    )


def spool_now(about: Mapping[str, object]) -> Spooled | None:
    """What waits in the gateway of the system that told this about itself; None: it does not answer."""
    ports = about.get("admin_ports")
    port = ports.get("gateway") if isinstance(ports, dict) else None
    if port is None:
        return None
    status, body = asyncio.run(http_get(port, "/metrics"))
    return spooled_in(body.decode(errors="replace")) if status == 200 else None


def as_json(spooled: Spooled | None) -> dict[str, object] | None:
    """As --json prints it."""
    return None if spooled is None else asdict(spooled)
