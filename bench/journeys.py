"""How long the asynchronous half takes: from a create's answer to its row, from a redirect's answer to the count."""

import asyncio
import time
from dataclasses import dataclass

import httpx

from chassis.dynamodb import open_dynamodb
from contracts.link import LinkKey
from contracts.link_rows import row_key
from contracts.tables import LINKS

_POLL_S = 0.002
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Journey:
    """Milliseconds of one kind of way, over so many tries."""

    name: str
    tries: int
    p50_ms: float
    p99_ms: float


async def measure(gateway: str, api_key: str, dynamodb: str, *, tries: int) -> list[Journey]:
    """The ways of `tries` links, one after the other on an otherwise idle system."""
    ways: dict[str, list[float]] = {"create": [], "create-to-table": [], "click-to-stats": []}
    headers = {"authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=gateway, headers=headers, timeout=5) as client, open_dynamodb(dynamodb) as db:
        for number in range(tries):
            started = time.perf_counter()
            made = await client.post("/api/links", json={"long_url": f"https://example.com/{number}"})
            answered = time.perf_counter()
            code = made.raise_for_status().json()["short_code"]
            while "Item" not in await db.get_item(
                TableName=LINKS.name, Key=row_key(LinkKey(code)), ConsistentRead=True
            ):
                await _wait(answered)
            stored = time.perf_counter()
            await client.get(f"/{code}")
            clicked = time.perf_counter()
            while (await client.get(f"/api/links/{code}/stats")).raise_for_status().json()["clicks"]["total"] != 1:
                await _wait(clicked)
            ways["create"].append(answered - started)
            ways["create-to-table"].append(stored - answered)
            ways["click-to-stats"].append(time.perf_counter() - clicked)
    return [_summary(name, values) for name, values in ways.items()]


async def _wait(since: float) -> None:
    if time.perf_counter() - since > _PATIENCE_S:
        raise TimeoutError(f"nothing arrived within {_PATIENCE_S} s")
    await asyncio.sleep(_POLL_S)


def _summary(name: str, values: list[float]) -> Journey:
    ordered = sorted(values)
    return Journey(
        name,
        len(ordered),
        p50_ms=1000 * ordered[len(ordered) // 2],
        p99_ms=1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    )
