"""How long after the kill -9 of a process everything that depends on it serves again, as one notices from outside.

The supervisor starts what ended after 0.5 s; that pause, the start of the process and all that follows are in the time.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from chassis.dynamodb import dynamodb_errors, open_dynamodb
from chassis.errors import Unavailable
from contracts.link import LinkKey
from contracts.link_rows import row_key
from contracts.tables import LINKS, event_sk
from linkmesh.local.ports import free_port
from linkmesh.local.supervisor import LocalSystem

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

_TRY_S = 0.01
_TRY_TIMEOUT_S = 2.0
_PATIENCE_S = 60.0
_SETTLE_S = 1.0
_WELL_S = 0.1  # a writer whose rows are there so soon after the answer is not behind
_FAILED = (aiohttp.ClientError, OSError, TimeoutError, Unavailable)


@dataclass(frozen=True, slots=True)
class RecoveryFigures:
    """`seconds` from the kill -9 of a process until `sign`."""

    killed: str
    sign: str
    seconds: float


@dataclass
class Outside:
    """Somebody outside: a client, a look at the raw table, a receiver of webhooks."""

    gateway: str
    session: aiohttp.ClientSession
    table: "DynamoDBClient"
    code: str = ""
    clicks: int = 0
    heard: set[str] = field(default_factory=set)  # links of which a webhook has told

    async def create(self) -> str:
        """Make a link; its code, or nothing when it was not acknowledged."""
        async with self.session.post(f"{self.gateway}/api/links", json={"long_url": "https://example.com/"}) as answer:
            return str((await answer.json())["short_code"]) if answer.status == 201 else ""

    async def redirects(self) -> bool:
        """Whether the link of before leads on."""
        async with self.session.get(f"{self.gateway}/{self.code}", allow_redirects=False) as answer:
            self.clicks += answer.status == 302
            return answer.status == 302

    async def creates(self) -> bool:
        """Whether a create is acknowledged."""
        return bool(await self.create())

    async def has_row(self, code: str) -> bool:
        """Whether the table has a link's first event."""
        key = row_key(LinkKey(code), event_sk(1))
        with dynamodb_errors():
            return "Item" in await self.table.get_item(TableName=LINKS.name, Key=key, ConsistentRead=True)

    async def stores(self) -> bool:
        """Whether a new link is in the table within a moment."""
        code, made_at = await self.create(), time.perf_counter()
        while code and time.perf_counter() - made_at < _WELL_S:
            if await self.has_row(code):
                return True
        return False

    async def counts(self) -> bool:
        """Whether the statistics have all clicks but perhaps the one of now, which is still on its way."""
        if not await self.redirects():
            return False
        async with self.session.get(f"{self.gateway}/api/links/{self.code}/stats") as answer:
            return answer.status == 200 and (await answer.json())["clicks"]["total"] >= self.clicks - 1

    async def tells(self) -> bool:
        """Whether a webhook tells of a link that is made now, within a moment."""
        code, made_at = await self.create(), time.perf_counter()
        while code and time.perf_counter() - made_at < 5 * _WELL_S:
            if code in self.heard:
                return True
            await asyncio.sleep(_TRY_S)
        return False

    async def records(self) -> bool:
        """Whether the audit log has a leaf about a link that is made now, within a moment."""
        code, made_at = await self.create(), time.perf_counter()
        while code and time.perf_counter() - made_at < 5 * _WELL_S:
            async with self.session.get(f"{self.gateway}/api/audit/entries", params={"short_code": code}) as answer:
                if answer.status == 200 and (await answer.json())["items"]:
                    return True
        return False


async def measure(system: LocalSystem) -> list[RecoveryFigures]:
    """Kill one after the other, each in a system that is well; pauses in between do not count.

    Raises:
        TimeoutError: something did not come back.
    """
    async with _outside(system) as outside:
        signs: list[tuple[str, str, Callable[[], Awaitable[bool]]]] = [
            ("gateway", "a redirect is answered", outside.redirects),
            ("link_service", "a create is acknowledged", outside.creates),
            ("writer", "a new link is in the table within 0.1 s", outside.stores),
            ("analytics", "the statistics have all clicks", outside.counts),
            ("webhook", "a webhook tells of a new link within 0.5 s", outside.tells),
            ("audit", "a new link has its leaf within 0.5 s", outside.records),
            ("valkey", "a create is acknowledged", outside.creates),
            ("dynamodb", "a new link is in the table within 0.1 s", outside.stores),
            ("kafka", "a new link is in the table within 0.1 s", outside.stores),
        ]
        found: list[RecoveryFigures] = []
        for name, sign, holds in signs:
            await _until(outside.stores)
            await _until(holds)
            await asyncio.sleep(_SETTLE_S)
            began = time.perf_counter()
            system.kill(name)
            await _until(holds)
            found.append(RecoveryFigures(name, sign, time.perf_counter() - began))
            print(f"{name}: {found[-1].seconds:.1f} s until {sign}", file=sys.stderr)
            await system.wait_ready(name)
        return found


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Try until it holds; what fails or hangs was a try."""
    async with asyncio.timeout(_PATIENCE_S):
        while not await _tried(holds):  # noqa: ASYNC110 (asked over the network)
            await asyncio.sleep(_TRY_S)


async def _tried(holds: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(_TRY_TIMEOUT_S):
            return await holds()
    except _FAILED:
        return False


@asynccontextmanager
async def _outside(system: LocalSystem) -> AsyncIterator[Outside]:
    """A client with a link and an endpoint of its own."""
    dynamodb = f"http://127.0.0.1:{system.options.ports['dynamodb']}"
    headers = {"authorization": f"Bearer {system.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as session, open_dynamodb(dynamodb, timeout_s=1) as table:
        outside = Outside(system.gateway, session, table)
        outside.code = await outside.create()
        async with _receiver(outside.heard) as url:
            async with session.post(f"{system.gateway}/api/webhooks", json={"url": url}) as answer:
                answer.raise_for_status()
            yield outside


@asynccontextmanager
async def _receiver(heard: set[str]) -> AsyncIterator[str]:
    """A receiver of webhooks; notes the link that each is about."""

    async def take(request: web.Request) -> web.Response:
        heard.add((await request.json())["data"]["short_code"])
        return web.Response(status=204)

    app, port = web.Application(), free_port()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()
