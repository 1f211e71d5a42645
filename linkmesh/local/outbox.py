"""How much waits between Redis and Kafka: the processes of link_service measure it each second."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from linkmesh.local.probes import http_get

_FIGURE = re.compile(r"^outbox_(entries|age_seconds|bytes|bytes_max) ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in the outbox. `bytes_max`: its budget; creates are refused from nine tenths of it on [O3]."""

    entries: int
    age_seconds: float
    size_bytes: int
    bytes_max: int

    def sentence(self) -> str:
        """For a person."""
        if not self.entries:
            return "outbox empty"
        share = f", {self.size_bytes / self.bytes_max:.0%} of its budget" if self.bytes_max else ""
        return (
            f"outbox {self.entries} event{'' if self.entries == 1 else 's'}, the oldest {self.age_seconds:.1f} s old,"
            f" {self.size_bytes / 1e6:.1f} MB{share}"
        )


def waiting_in(exposition: str) -> Waiting | None:
    """What a process' /metrics say; None: it has no outbox."""
    found = {name: float(value) for name, value in _FIGURE.findall(exposition)}
    if "entries" not in found:
        return None
    return Waiting(
        entries=int(found["entries"]),
        age_seconds=found.get("age_seconds", 0.0),
        size_bytes=int(found.get("bytes", 0)),
        bytes_max=int(found.get("bytes_max", 0)),
    )


def outbox_now(about: Mapping[str, object]) -> Waiting | None:
    """What waits in the system that told this about itself; of several processes the one that sees the most. None: no
    process answers that measures it."""
    ports = about.get("admin_ports")
    return asyncio.run(_ask(ports.values() if isinstance(ports, dict) else ()))


def as_json(waiting: Waiting | None) -> dict[str, object] | None:
    """As --json prints it."""
    return None if waiting is None else asdict(waiting)


async def _ask(ports: Iterable[int]) -> Waiting | None:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(http_get(port, "/metrics")) for port in ports]
    answers = (task.result() for task in asked)
    seen = (waiting_in(body.decode(errors="replace")) for status, body in answers if status == 200)
    return max((found for found in seen if found is not None), key=lambda found: found.entries, default=None)
