"""The front door on a real port, with all that goes past the app or with none of it, and raw connections to it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvloop
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from chassis.http_server import HttpServer
from contracts.link import Link
from gateway.adapters.http_protocol import LimitedHttpProtocol
from gateway.fastpath import FastHttpProtocol, FastRedirects, fast_protocol
from tests.fakes.gateway_ports import Door, DoorOptions, open_door

if TYPE_CHECKING:  # uvicorn's own module of types
    from uvicorn._types import ASGI3Application

REPLY_S = 20.0


@dataclass
class Port:
    """A port with a front door behind it. `asked`: the paths of what the app was asked, in order; `protocols`: of all
    connections there ever were."""

    door: Door
    number: int
    stop: asyncio.Event
    asked: list[str] = field(default_factory=list)
    protocols: list[LimitedHttpProtocol] = field(default_factory=list)
    read_bytes: int = 0

    async def send(self, wire: "Wire", data: bytes) -> None:
        """Sends bytes that are read at once, and on their own."""
        expected = self.read_bytes + len(data)
        wire.writer.write(data)
        await until(lambda: self.read_bytes >= expected or wire.reader.at_eof())

    @contextlib.asynccontextmanager
    async def dial(self, limit: int = 1 << 20) -> AsyncIterator["Wire"]:
        """A connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, limit=limit)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@dataclass
class Wire:
    """One connection to the gateway."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> bytes:
        """Sends bytes and reads one answer."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self, *, head_only: bool = False) -> bytes:
        """The bytes of the next answer."""
        async with asyncio.timeout(REPLY_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            return head + await self.reader.readexactly(0 if head_only or not length else int(length[1]))

    async def rest(self) -> bytes:
        """All that comes until the other side hangs up."""
        async with asyncio.timeout(REPLY_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


async def until(true: Callable[[], bool]) -> None:
    """Waits until it is true."""
    async with asyncio.timeout(REPLY_S):
        while not true():
            await asyncio.sleep(0.005)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a door is served. `links` are known in this process already, unless nothing goes past the app; `stored` ones
    are in Redis. `misses`: what has to be looked up goes past the app, too."""

    fast: bool = True
    misses: bool = False
    links: tuple[Link, ...] = ()
    stored: tuple[Link, ...] = ()
    options: DoorOptions | None = None
    keep_alive_s: float = 5.0
    headers_timeout_s: float = 10.0


def serving(scenario: Callable[[Port], Awaitable[None]], setting: Setting) -> None:
    """Runs a scenario at a real port, on the loop that processes have."""

    async def main() -> None:
        async with open_door(setting.options) as door, asyncio.TaskGroup() as tasks:
            door.lookups.subscribed(door.clock.monotonic())
            door.lookups.turned()
            door.lookups.heard(door.clock.monotonic())
            for link in setting.stored:
                door.cache.store(link)
            for link in setting.links:
                door.cache.store(link)
                await door.lookups.look_up(link.key)
            port = Port(door, 0, asyncio.Event())
            server = HttpServer(door.front, host="127.0.0.1", port=0, protocol=_watched(port, setting))
            running = tasks.create_task(server.run(port.stop))
            await until(lambda: server.port != 0)
            port.number = server.port
            try:
                await scenario(port)
            finally:
                port.stop.set()
                await asyncio.wait([running])  # a server that is cancelled never lets uvloop go

    uvloop.run(main())


def _watched(port: Port, setting: Setting) -> type[asyncio.Protocol]:
    ratio = setting.options.keep_ratio if setting.options else 0.0
    redirects = FastRedirects(port.door.lookups, port.door.clicks, ratio)
    misses = port.door.misses if setting.misses else None
    made = fast_protocol(port.door.fast, redirects, misses) if setting.fast else LimitedHttpProtocol

    class Watched(made):  # type: ignore[valid-type, misc]  # made at run time
        headers_timeout_s = setting.headers_timeout_s

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.timeout_keep_alive = setting.keep_alive_s
            port.protocols.append(self)

        def data_received(self, data: bytes) -> None:
            port.read_bytes += len(data)
            super().data_received(data)

        def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
            port.asked.append(cycle.scope["path"])
            super()._start_asgi_task(cycle, app)

    assert issubclass(Watched, FastHttpProtocol) is setting.fast
    return Watched
