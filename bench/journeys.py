"""How long the asynchronous half takes: from a create's answer to its row, from a redirect's answer to the count."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from bench import instances
from bench.paced import percentile
from chassis.dynamodb import open_dynamodb
from contracts.link import LinkKey
from contracts.link_rows import row_key
from contracts.tables import LINKS
from linkmesh.local.supervisor import LocalSystem

_POLL_S = 0.002
_PATIENCE_S = 10.0
_JOIN_S = 30.0  # a new instance takes over its partitions


@dataclass(frozen=True, slots=True)
class Journey:
    """Milliseconds of one kind of way, over so many tries."""

    name: str
    tries: int
    p50_ms: float
    p99_ms: float


async def measure(system: LocalSystem, *, tries: int) -> list[Journey]:
    """The ways of `tries` links, one after the other on an otherwise idle system; then those of clicks once more with
    two instances of analytics, each asked for every other link, whoever of the two has counted it."""
    ways: dict[str, list[float]] = {"create": [], "create-to-table": [], "click-to-stats": []}
    dynamodb = f"http://127.0.0.1:{system.options.ports['dynamodb']}"
    async with _client(system) as client, open_dynamodb(dynamodb) as database:
        for number in range(tries):
            started = time.perf_counter()
            code = await _made(client, f"https://example.com/{number}")
            answered = time.perf_counter()
            key = row_key(LinkKey(code))
            while "Item" not in await database.get_item(TableName=LINKS.name, Key=key, ConsistentRead=True):
                await _wait(answered)
            ways["create"].append(answered - started)
            ways["create-to-table"].append(time.perf_counter() - answered)
            ways["click-to-stats"].append(await _to_stats(client, code, [system.gateway]))
    ways["click-to-stats, two analytics"] = await _with_two(system, tries)
    return [_summary(name, values) for name, values in ways.items()]


async def _with_two(system: LocalSystem, tries: int) -> list[float]:
    """With a second instance of analytics, and a second gateway that asks this one."""
    async with (
        instances.running(system, "analytics", "analytics-second", {}) as second,
        instances.running(
            system, "gateway", "gateway-second", {"LINKMESH_ANALYTICS": f"127.0.0.1:{second.grpc_port}"}
        ) as gateway,
        _client(system) as client,
    ):
        asked = [system.gateway, gateway.url]
        await _joined(client, asked)
        codes = [await _made(client, f"https://example.com/two/{number}") for number in range(tries)]
        return [await _to_stats(client, code, [asked[number % 2]]) for number, code in enumerate(codes)]


async def _joined(client: httpx.AsyncClient, gateways: Sequence[str]) -> None:
    """Returns when clicks are counted again, whoever is asked: a new member of the group moves partitions first."""
    deadline, good = time.monotonic() + _JOIN_S, 0
    while good < 2 * len(gateways) and time.monotonic() < deadline:
        code = await _made(client, "https://example.com/joined")
        took_s = await _to_stats(client, code, gateways)
        good = good + 1 if took_s < 1 else 0


async def _to_stats(client: httpx.AsyncClient, code: str, gateways: Sequence[str]) -> float:
    """Seconds from a redirect's answer until each of these gateways shows it in the statistics."""
    await client.get(f"/{code}")
    clicked = time.perf_counter()
    for gateway in gateways:
        while True:
            stats = await client.get(f"{gateway}/api/links/{code}/stats")
            if stats.status_code == 200 and stats.json()["clicks"]["total"] == 1:
                break
            await _wait(clicked)
    return time.perf_counter() - clicked


def _client(system: LocalSystem) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {system.api_key}"}
    return httpx.AsyncClient(base_url=system.gateway, headers=headers, timeout=5)


async def _made(client: httpx.AsyncClient, url: str) -> str:
    made = await client.post("/api/links", json={"long_url": url})
    return str(made.raise_for_status().json()["short_code"])


async def _wait(since: float) -> None:
    if time.perf_counter() - since > _PATIENCE_S:
        raise TimeoutError(f"nothing arrived within {_PATIENCE_S} s")
    await asyncio.sleep(_POLL_S)


def _summary(name: str, values: list[float]) -> Journey:
    ordered = sorted(values)
    p50, p99 = percentile(ordered, 0.5), percentile(ordered, 0.99)
    return Journey(name, len(ordered), p50_ms=1000 * p50, p99_ms=1000 * p99)
