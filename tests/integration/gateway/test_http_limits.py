"""HTTP as a stranger may send it: too large, too slow, or not HTTP at all; over raw sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chassis.http_server import HttpServer
from gateway.adapters.http_protocol import HEADER_BYTES_MAX, LimitedHttpProtocol
from tests.fakes.gateway_peers import KEY, make_link
from tests.fakes.gateway_ports import open_door

REQUEST = b"GET /aB3dE7x HTTP/1.1\r\nHost: lm.example\r\n"
_REPLY_S = 10.0


class HastyProtocol(LimitedHttpProtocol):
    """The same, with less patience."""

    headers_timeout_s = 0.3


class Wire:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends bytes and reads one answer."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(_REPLY_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def closed(self) -> bool:
        """Whether the other side hangs up."""
        async with asyncio.timeout(_REPLY_S):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read() == b""
        return True


Dial = Callable[[], contextlib.AbstractAsyncContextManager[Wire]]


def serving(
    scenario: Callable[[Dial], Awaitable[None]], protocol: type[LimitedHttpProtocol] = LimitedHttpProtocol
) -> None:
    """Runs a scenario against the front door on a real port."""

    async def main() -> None:
        stop = asyncio.Event()
        async with open_door() as door, asyncio.TaskGroup() as tasks:
            door.cache.store(make_link())
            server = HttpServer(door.front, host="127.0.0.1", port=0, protocol=protocol)
            tasks.create_task(server.run(stop))
            async with asyncio.timeout(_REPLY_S):
                while not server.port:
                    await asyncio.sleep(0.005)

            @contextlib.asynccontextmanager
            async def dial() -> AsyncIterator[Wire]:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                try:
                    yield Wire(reader, writer)
                finally:
                    writer.close()
                    with contextlib.suppress(ConnectionError):
                        await writer.wait_closed()

            try:
                await scenario(dial)
            finally:
                stop.set()

    asyncio.run(main())


def test_a_connection_serves_many_requests() -> None:
    """Keep-alive and pipelining: the answers come in order on one connection."""

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            unknown = REQUEST.replace(b"aB3dE7x", b"unknown")

            wire.writer.write((REQUEST + b"\r\n") * 2 + unknown + b"\r\n" + REQUEST + b"\r\n")

            assert [(await wire.answer())[0] for _ in range(4)] == [302, 302, 404, 302]

    serving(scenario)


@pytest.mark.parametrize("lines", [1, 100])
def test_16_kib_of_headers_pass_and_more_is_431(lines: int) -> None:
    """The block is measured as a whole, in one line or in many; the refusal is a problem, and the end."""

    def block(size: int) -> bytes:
        share = (size - len(REQUEST)) // lines
        return REQUEST + b"".join(b"x-%03d: %s\r\n" % (number, b"v" * (share - 9)) for number in range(lines)) + b"\r\n"

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            assert (await wire.ask(block(HEADER_BYTES_MAX - 64)))[0] == 302
        async with dial() as wire:
            status, headers, body = await wire.ask(block(HEADER_BYTES_MAX + 512))

            assert status == 431
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["code"] == "headers_too_large"
            assert await wire.closed()

    serving(scenario)


@pytest.mark.parametrize("start", [b"GET /", REQUEST + b"x-endless: "])
def test_a_line_that_never_ends_is_431(start: bytes) -> None:
    """Neither a target nor a header may grow without end, in whatever pieces it comes."""

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            wire.writer.write(start)
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(wire.answer())
                while not answer.done():  # a byte sent after the refusal could cost us the answer
                    wire.writer.write(b"v" * 1024)
                    await asyncio.wait([answer], timeout=0.005)

            assert answer.result()[0] == 431

    serving(scenario)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /api/links HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /api/links HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/links HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400(noise: bytes) -> None:
    """TLS on a plain port, no method, no colon, two lengths, a length and chunks: 400 in our form, and the end."""

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            status, headers, body = await wire.ask(noise)

            assert status == 400, (status, headers, body)
            assert json.loads(body)["code"] == "malformed_request"
            assert await wire.closed()
        async with dial() as wire:
            assert (await wire.ask(REQUEST + b"\r\n"))[0] == 302

    serving(scenario)


def test_headers_that_do_not_come_end_the_connection() -> None:
    """Silence, half a request, and half a second request are each given up; a whole one in two pieces is not."""

    async def scenario(dial: Dial) -> None:
        for held in (b"", b"GET /aB3", REQUEST):
            async with dial() as wire:
                wire.writer.write(held)
                assert await wire.closed()
        async with dial() as wire:
            assert (await wire.ask(REQUEST + b"\r\n"))[0] == 302
            wire.writer.write(REQUEST)
            assert await wire.closed()
        async with dial() as wire:
            wire.writer.write(REQUEST[:20])
            await wire.writer.drain()
            await asyncio.sleep(0.02)
            assert (await wire.ask(REQUEST[20:] + b"\r\n"))[0] == 302

    serving(scenario, HastyProtocol)


def test_a_trailer_is_no_header() -> None:
    """What stands behind a body in pieces says neither who asks nor where from: no proxy has looked at it."""
    head = b"POST /api/links HTTP/1.1\r\nhost: lm.example\r\ncontent-type: application/json\r\n"
    body = b'{"long_url": "https://example.com/"}'
    trailer = b"authorization: Bearer " + KEY.encode() + b"\r\n"
    pieces = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            assert (await wire.ask(head + pieces + trailer + b"\r\n"))[0] == 401
            assert (await wire.ask(head + trailer + pieces + b"\r\n"))[0] == 201

    serving(scenario)


def test_a_large_body_is_refused_and_the_connection_goes_on() -> None:
    """Up to 1 MiB is read and thrown away, so that the answer arrives; a declared gigabyte ends the connection."""

    def post(length: int) -> bytes:
        head = f"POST /api/links HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
        return head.encode() + b"Content-Length: %d\r\n\r\n" % length

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            status, headers, _ = await wire.ask(post(200_000) + b"x" * 200_000)
            assert (status, headers.get("connection")) == (413, None)
            assert (await wire.ask(REQUEST + b"\r\n"))[0] == 302
        async with dial() as wire:
            status, headers, _ = await wire.ask(post(1 << 30) + b"x" * 1000)
            assert (status, headers["connection"]) == (413, "close")
            assert await wire.closed()

    serving(scenario)


def test_an_upgrade_is_not_followed() -> None:
    """Nobody speaks WebSocket here: the request is answered as if it had not asked."""

    async def scenario(dial: Dial) -> None:
        async with dial() as wire:
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
            assert (await wire.ask(REQUEST + upgrade))[0] == 302

    serving(scenario)
