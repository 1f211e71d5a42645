"""How many dead letters each group has left within the hour, and whether it has stopped itself: the broker is asked,
and the processes, which have counted also what was purged since."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.dead_letter_breaker import LOOK_BACK_MS, Breaker
from chassis.kafka.dead_letter_counts import severity
from contracts.topics import GROUPS, WITH_DEAD_LETTERS, dead_letter_topic
from linkmesh.local.probes import http_get

_TIMEOUT_S = 3.0  # `status` is to answer also while the broker is away
_RECORDS_MAX = 200_000
_STOPPED = re.compile(r'^consumer_stopped\{group="([^"]+)"\} ([0-9.]+)$', re.MULTILINE)


def counted_now(about: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return each group that has dead letters, in the system that told this about itself; None: Kafka is away."""
    addresses, ports = about.get("addresses"), about.get("admin_ports")
    if not isinstance(addresses, dict) or "kafka" not in addresses:
        return None
    try:
        return asyncio.run(_ask(str(addresses["kafka"]), ports.values() if isinstance(ports, dict) else ()))
    except Unavailable:
        return None


def stopped_groups(exposition: str) -> frozenset[str]:
    """Return the groups that a process says have stopped themselves, in its /metrics."""
    return frozenset(group for group, value in _STOPPED.findall(exposition) if float(value))


def stopped_now(ports: Iterable[int]) -> frozenset[str]:
    """Return the groups that have stopped themselves, as the processes with these admin ports tell it."""
    return asyncio.run(_stopped(ports))


async def _stopped(ports: Iterable[int]) -> frozenset[str]:
    answers = [await http_get(port, "/metrics") for port in ports]
    return frozenset[str]().union(*(stopped_groups(body.decode(errors="replace")) for _, body in answers))


async def _ask(bootstrap: str, ports: Iterable[int]) -> list[dict[str, object]]:
    clock = SystemClock()
    since = clock.now() - timedelta(milliseconds=LOOK_BACK_MS)
    topics = [dead_letter_topic(topic) for topic in WITH_DEAD_LETTERS]
    async with Admin(bootstrap, client_id="linkmesh-status", timeout_s=_TIMEOUT_S) as admin:
        records = await admin.records_since(topics, since, limit=_RECORDS_MAX)
    stopped = await _stopped(ports)
    told: list[dict[str, object]] = []
    for group in GROUPS:
        breaker = Breaker(group)
        breaker.note(records)
        count = breaker.lately(now_ms=int(clock.now().timestamp() * 1000))
        is_stopped = breaker.tripped or group in stopped
        if count or is_stopped:
            kind = severity(count).value
            told.append({"group": group, "last_hour": count, "severity": kind, "stopped": is_stopped})
    return told
