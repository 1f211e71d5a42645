"""How far every consumer group is behind: the broker asked, and the processes that answer."""

import asyncio
from collections.abc import Iterable, Mapping

from chassis.clock import Clock, SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.lag import Gauges, PartitionLag, gauges_of, merged, rows_of, worst
from contracts.topics import GROUPS
from linkmesh.local.probes import http_get

_STATUS_TIMEOUT_S = 3.0  # `status` is to answer also while the broker is away


async def measure(admin: Admin, admin_ports: Iterable[int], *, clock: Clock) -> list[PartitionLag]:
    """Return every group of contracts/topics.py on each partition that exists.

    Raises:
        Unavailable: the broker does not answer.
    """
    gauges = await _gauges(admin_ports)
    rows: list[PartitionLag] = []
    for group, topics in GROUPS.items():
        lags = await admin.lag(group, topics, now=clock.now())
        rows += rows_of(group, lags, await admin.group_members(group), gauges)
    return rows


def as_json(row: PartitionLag) -> dict[str, object]:
    """Return a row as it is printed by --json."""
    return {
        "group": row.group,
        "topic": row.topic,
        "partition": row.partition,
        "records": row.records,
        "seconds": row.seconds,
        "level": row.level.value,
        "committed": row.committed,
        "end": row.end,
        "owner": row.owner,
    }


def worst_now(about: Mapping[str, object]) -> list[dict[str, object]] | None:
    """Return the worst partition of each group of the system that told this about itself; None: Kafka is away."""
    addresses, ports = about.get("addresses"), about.get("admin_ports")
    if not isinstance(addresses, dict) or "kafka" not in addresses:
        return None

    async def ask() -> list[PartitionLag]:
        async with Admin(str(addresses["kafka"]), client_id="linkmesh-lag", timeout_s=_STATUS_TIMEOUT_S) as admin:
            return await measure(admin, ports.values() if isinstance(ports, dict) else (), clock=SystemClock())

    try:
        return [as_json(row) for row in worst(asyncio.run(ask())).values()]
    except Unavailable:
        return None


async def _gauges(admin_ports: Iterable[int]) -> Gauges:
    """What the processes say; one that hangs or is gone says nothing."""
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(http_get(port, "/metrics")) for port in admin_ports]
    answers = [task.result() for task in asked]
    return merged(gauges_of(body.decode(errors="replace")) for status, body in answers if status == 200)
