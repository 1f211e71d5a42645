"""python -m bench.ladder_server STEP PORT FOLDER: a server that does so much of a redirect, until SIGTERM.

Each step does what the one before does, and one thing more, with the product's own code.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import cast

import httptools
import uvloop

from bench.links import link_of
from chassis.clock import SystemClock, epoch_ms
from chassis.http_server import HttpServer, Receive, Scope, Send
from chassis.lifecycle import Component
from contracts.topics import ANALYTICS_EVENTS
from gateway.adapters.click_recorder import SpoolClickRecorder
from gateway.adapters.click_spools import ClickSpools, SpoolOptions
from gateway.domain.near_cache import TURN_S, Entry, Flight, Limits, NearCache
from gateway.domain.redirects import ready_answer
from gateway.domain.visitors import Visitors
from gateway.fast_creates import FastCreates
from gateway.fastpath import FastRedirects, fast_protocol
from gateway.ports import ClickRecorder, ClickTarget, ReadyRedirect, ReadyRedirects

STEPS = ("bytes", "parsed", "connection", "remembered", "recorded")
PATH = b"/abcdefg"
_SPOOL_BYTES = 4 << 30  # enough for the longest run: a full spool would drop clicks, which is cheaper
_SEGMENT_BYTES = 1 << 20


async def main(step: str, port: int, folder: Path) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        components = await _COMPONENTS[step](port, folder, stack)
        async with asyncio.TaskGroup() as tasks:
            for component in components:
                tasks.create_task(component.run(stop))


class _Bytes(asyncio.Protocol):
    """Answers whatever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - a request, whatever it is
        self.transport.write(_READY.answer)


class _Parsed(_Bytes):
    """Answers what is a request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.transport.write(_READY.answer)


class _Listener:
    """A component: a plain protocol on a port."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol], port: int) -> None:
        self._protocol = protocol
        self._port = port

    async def run(self, stop: asyncio.Event) -> None:
        server = await asyncio.get_running_loop().create_server(self._protocol, "127.0.0.1", self._port)
        async with server:
            await stop.wait()


class _OneReady:
    """A ReadyRedirects of one link that never changes."""

    def get(self, path: bytes) -> ReadyRedirect | None:
        return _READY if path == PATH else None


class _Forgetful:
    """A ClickRecorder that takes clicks and leaves them."""

    def record(
        self,
        target: ClickTarget,  # noqa: ARG002 - all of them are the port's
        method: str,  # noqa: ARG002
        headers: Sequence[tuple[bytes, bytes]],  # noqa: ARG002
        peer: str,  # noqa: ARG002
        traceparent: str | None,  # noqa: ARG002
    ) -> bool:
        return True


class _Ending:
    """A component: a server, and behind its last request the end of recording; nothing is ever sent."""

    def __init__(self, server: HttpServer, spools: ClickSpools) -> None:
        self._server = server
        self._spools = spools

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await self._server.run(stop)
        finally:
            self._spools.close()
            self._spools.finish()


class _Turning:
    """A component: says to a near cache that its channel is well, as the real one's beats do."""

    def __init__(self, near: "NearCache[None, ReadyRedirect, Flight]") -> None:
        self._near = near

    async def run(self, stop: asyncio.Event) -> None:
        self._near.subscribed(monotonic())
        self._near.keep(Entry(PATH, None, _READY, None))
        while not stop.is_set():
            self._near.turned()
            self._near.heard(monotonic())
            await asyncio.sleep(TURN_S)


async def _bytes(port: int, _folder: Path, _stack: AsyncExitStack) -> list[Component]:
    return [_Listener(_Bytes, port)]


async def _parsed(port: int, _folder: Path, _stack: AsyncExitStack) -> list[Component]:
    return [_Listener(_Parsed, port)]


async def _connection(port: int, _folder: Path, _stack: AsyncExitStack) -> list[Component]:
    return [_server(port, _OneReady(), _Forgetful())]


async def _remembered(port: int, _folder: Path, _stack: AsyncExitStack) -> list[Component]:
    near = _near()
    return [_Turning(near), _server(port, near, _Forgetful())]


async def _recorded(port: int, folder: Path, stack: AsyncExitStack) -> list[Component]:
    near = _near()
    await asyncio.to_thread(folder.mkdir)
    options = SpoolOptions(
        root=folder, partitions=ANALYTICS_EVENTS.partitions, bytes_max=_SPOOL_BYTES, segment_bytes=_SEGMENT_BYTES
    )
    spools = await stack.enter_async_context(ClickSpools(options, clock=SystemClock()))
    recorder = SpoolClickRecorder(
        spools.append, partitions=options.partitions, visitors=Visitors(bytes(32)), now_ms=epoch_ms
    )
    return [_Turning(near), spools, _Ending(_server(port, near, recorder), spools)]


def _near() -> "NearCache[None, ReadyRedirect, Flight]":
    return NearCache(Limits(), monotonic=monotonic, now=SystemClock().now)


def _server(port: int, ready: ReadyRedirects, recorder: ClickRecorder) -> HttpServer:
    creates = cast("FastCreates", None)  # nobody creates here
    protocol = fast_protocol(creates, FastRedirects(ready=ready, recorder=recorder, keep_ratio=0.0))
    return HttpServer(_nothing, host="127.0.0.1", port=port, protocol=protocol)


async def _nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    """The app: here it has nothing to say, and a request that comes to it is an error of the run."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _ready() -> ReadyRedirect:
    link = link_of(0)
    answer = ready_answer(link, SystemClock().now())
    assert answer is not None, "it redirects"
    return ReadyRedirect(answer, ClickTarget(link.key, link.user_id))


_READY = _ready()
_COMPONENTS = {
    "bytes": _bytes,
    "parsed": _parsed,
    "connection": _connection,
    "remembered": _remembered,
    "recorded": _recorded,
}

if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
