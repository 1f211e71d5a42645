"""What the statistics say of the clicks that were answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families

from linkmesh.local.probes import http_get

_PATIENCE_S = 60.0
_STILL_S = 1.0  # longer than a click takes: what was counted too much would show by then
_LOOK_S = 0.25

Counter = Callable[[], Awaitable[int]]


async def settled(count: Counter, expected: int, *, still_s: float = _STILL_S, patience_s: float = _PATIENCE_S) -> int:
    """What is counted, a second after it was at least as much as expected, or when a minute is over."""
    deadline, reached = time.monotonic() + patience_s, 0.0
    while True:
        value, now = await count(), time.monotonic()
        reached = reached or (now if value >= expected else 0.0)
        if (reached and now - reached >= still_s) or now > deadline:
            return value
        await asyncio.sleep(min(_LOOK_S, still_s / 4))


async def clicks_of(gateway: str, api_key: str, codes: Sequence[str]) -> int:
    """The clicks of these links together, as the API tells them; -1 as long as it cannot."""
    headers = {"authorization": f"Bearer {api_key}"}
    total = 0
    async with httpx.AsyncClient(base_url=gateway, headers=headers, timeout=5) as client:
        for code in codes:
            stats = await client.get(f"/api/links/{code}/stats")
            if stats.status_code != 200:  # 503 and 504 while the other processes catch up on their one core
                return -1
            total += int(stats.json()["clicks"]["total"])
    return total


async def metric_sum(admin_port: int, name: str, **labels: str) -> float:
    """The sum of a process' metric over all label values but those given."""
    status, body = await http_get(admin_port, "/metrics")
    if status != 200:
        return 0.0
    return sum(
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def dropped(admin_ports: Sequence[int]) -> int:
    """The clicks for which these gateways had no room."""
    return round(sum([await metric_sum(port, "clicks_dropped_total") for port in admin_ports]))


async def all_clicks(admin_ports: Sequence[int]) -> int:
    """The clicks that these instances of analytics have added to a row since they started."""
    return round(sum([await metric_sum(port, "clicks_counted_total") for port in admin_ports]))
