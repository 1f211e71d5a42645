"""Clients that take their time, or more than their share: what they get, when they are let go, and what they cost."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.gateway_peers import KEY, make_link
from tests.integration.gateway.doors import REPLY_S, Port, Setting, Wire, serving, until

LINK = make_link("aB3dE7x")
PLAIN = b"GET /aB3dE7x HTTP/1.1\r\nHost: lm.example\r\n\r\n"
MISS = PLAIN.replace(b"aB3dE7x", b"aB3dE7y")
PAGE = PLAIN.replace(b"aB3dE7x", b"robots.txt")
POST = b"POST /api/links HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + KEY.encode()
WAYS = pytest.mark.parametrize("fast", [True, False], ids=["past the app", "by the app"])


@contextlib.asynccontextmanager
async def deaf(port: Port) -> AsyncIterator[socket.socket]:
    """A connection with a small window, whose other end is to be read by hand."""
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        raw.setblocking(False)  # noqa: FBT003 (a socket's own signature)
        await loop.sock_connect(raw, ("127.0.0.1", port.number))
        yield raw


@WAYS
@pytest.mark.parametrize("pages", [0, 1], ids=["redirects", "redirects and pages"])
def test_who_does_not_read_is_not_written_to(pages: int, fast: bool) -> None:
    """Answers wait at most a buffer long; then the connection is not read any more either. Once the client reads, it
    gets every answer, in order, and the connection is as fast as before."""
    count = 24_000

    async def scenario(port: Port) -> None:
        loop = asyncio.get_running_loop()
        async with deaf(port) as raw, asyncio.TaskGroup() as tasks:
            tasks.create_task(loop.sock_sendall(raw, (PLAIN * (60 - pages) + PAGE * pages) * (count // 60)))
            await until(lambda: bool(port.protocols) and port.protocols[0].flow.read_paused)
            protocol = port.protocols[0]
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert protocol.transport.get_write_buffer_size() < 1 << 20
                assert len(protocol.pipeline) < 1000
                assert len(protocol.backlog) <= 256_000
            seen = dict.fromkeys((b" 302 ", b" 200 "), 0)
            rest, statuses = b"", bytearray()
            async with asyncio.timeout(REPLY_S * 4):
                while sum(seen.values()) < count:
                    rest += await loop.sock_recv(raw, 1 << 16)
                    *heads, rest = rest.split(b"HTTP/1.1")
                    for head in heads[0 if statuses else 1 :]:
                        seen[head[:5]] += 1
                        statuses.append(head[1])
                    if sum(seen.values()) == count - 1 and b"\r\n\r\n" in rest:
                        seen[rest[:5]] += 1
            assert seen == {b" 302 ": count // 60 * (60 - pages), b" 200 ": count // 60 * pages}
            assert bytes(statuses[:120]) == (b"3" * (60 - pages) + b"2" * pages) * 2
            await until(lambda: not protocol.flow.read_paused)
            asked = len(port.asked)
            await loop.sock_sendall(raw, PLAIN)
            assert (await loop.sock_recv(raw, 1 << 16)).startswith(b"HTTP/1.1 302 ")
            assert len(port.asked) == asked + (not fast)

    serving(scenario, Setting(links=(LINK,), fast=fast))


@WAYS
def test_a_flood_behind_something_slow_is_bounded(fast: bool) -> None:
    """What comes behind an unanswered request is parsed a little at a time, also while answers go out one by one."""
    count = 8000

    async def scenario(port: Port) -> None:
        links = port.door.peers.links
        links.gate = asyncio.Event()
        longest = 0
        async with port.dial() as wire, asyncio.TaskGroup() as tasks:
            wire.writer.write(MISS * count)
            tasks.create_task(wire.writer.drain())
            await until(lambda: bool(links.requests))
            links.gate.set()
            for _ in range(count):
                assert (await wire.answer()).startswith(b"HTTP/1.1 404 ")
                protocol = port.protocols[0]
                longest = max(longest, len(protocol.pipeline))
                assert len(protocol.backlog) <= 256_000
            assert 0 < longest < 1000
            assert (await wire.ask(PLAIN)).startswith(b"HTTP/1.1 302 ")

    serving(scenario, Setting(links=(LINK,), fast=fast))


def test_a_body_behind_a_flood_arrives_whole() -> None:
    """A large body whose pieces lie behind slow requests, and small requests behind it, lose and mix nothing."""
    body = b'{"long_url": "https://example.com/", "title": "%b"}' % (b"x" * 200)
    post = POST + b"\r\nContent-Length: %d\r\n\r\n" % (len(body) + 60_000) + body + b" " * 60_000

    async def scenario(port: Port) -> None:
        links = port.door.peers.links
        links.gate = asyncio.Event()
        async with port.dial() as wire:
            wire.writer.write(MISS * 500 + post + PLAIN * 500 + post + PAGE)
            await until(lambda: bool(links.requests))
            links.gate.set()
            statuses = [(await wire.answer()).split()[1] for _ in range(1003)]
        assert statuses == [b"404"] * 500 + [b"201"] + [b"302"] * 500 + [b"201", b"200"]

    serving(scenario, Setting(links=(LINK,)))


@WAYS
def test_who_hangs_up_halfway_ends_the_connection(fast: bool) -> None:
    """A client that has said all it wanted gets whole answers or none, and then the end; nobody waits for it."""

    async def scenario(port: Port) -> None:
        for sent in (b"", PLAIN[:20], PLAIN, PLAIN * 3):
            async with port.dial() as wire:
                wire.writer.write(sent)
                wire.writer.write_eof()
                told = await wire.rest()
                whole = sent.count(PLAIN)
                assert told.count(b"HTTP/1.1 302 ") == told.count(b"\r\n\r\n") <= whole
                assert told.count(b"HTTP/1.1 302 ") == whole or not fast
        await until(lambda: all(each.transport.is_closing() for each in port.protocols))

    serving(scenario, Setting(links=(LINK,), fast=fast))


def test_who_vanishes_disturbs_nobody() -> None:
    """Connections that are reset between a request and its answer."""

    async def scenario(port: Port) -> None:
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
            writer.write(PLAIN * 10)
            writer.transport.abort()
            del reader
        async with port.dial() as wire:
            assert (await wire.ask(PLAIN)).startswith(b"HTTP/1.1 302 ")

    serving(scenario, Setting(links=(LINK,)))


async def _drip(wire: Wire, data: bytes, *, every_s: float) -> float:
    """Sends a byte at a time until the other side hangs up; how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with contextlib.suppress(ConnectionError):
        for place in range(len(data)):
            if wire.reader.at_eof() or wire.writer.is_closing():
                break
            wire.writer.write(data[place : place + 1])
            await asyncio.sleep(every_s)
    await wire.rest()
    return loop.time() - began


@WAYS
@pytest.mark.parametrize("begun", [b"", PLAIN, PAGE], ids=["first", "behind a redirect", "behind a page"])
def test_headers_that_drip_end_the_connection(begun: bytes, fast: bool) -> None:
    """However lively the dripping: the header block has its time, and no more."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            if begun:
                await wire.ask(begun)
            slow = PLAIN[:-2] + b"X-Slow: " + b"x" * 3000
            assert 0.3 < await _drip(wire, slow, every_s=0.02) < REPLY_S

    serving(scenario, Setting(links=(LINK,), fast=fast, headers_timeout_s=0.4, keep_alive_s=30.0))


@WAYS
def test_who_is_always_within_the_next_request_is_served(fast: bool) -> None:
    """The time of a header block is its own: a busy client whose every read ends within the next one goes on."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            wire.writer.write(PLAIN[:20])
            for _ in range(8):  # twice as long as a header block may take
                await asyncio.sleep(0.2)
                assert (await wire.ask(PLAIN[20:] + PLAIN[:20])).startswith(b"HTTP/1.1 302 ")

    serving(scenario, Setting(links=(LINK,), fast=fast, headers_timeout_s=0.8, keep_alive_s=30.0))


@WAYS
@pytest.mark.parametrize(
    "last",
    [PLAIN, PAGE, PLAIN + PAGE, PAGE + PLAIN, PLAIN + b"\r\n", PAGE + b"\r\n"],
    ids=["redirect", "page", "redirect, page", "page, redirect", "redirect, empty line", "page, empty line"],
)
def test_an_idle_connection_ends_after_the_keep_alive_time(last: bytes, fast: bool) -> None:
    """It ends, however its last request was answered, and not before its time."""

    async def scenario(port: Port) -> None:
        loop = asyncio.get_running_loop()
        async with port.dial() as wire:
            for _ in range(6):  # longer than the keep-alive time in all
                wire.writer.write(last)
                for _ in range(last.count(b"HTTP/1.1")):
                    assert await wire.answer()
                answered_at = loop.time()
                await asyncio.sleep(0.15)
            assert await wire.rest() == b""
            assert 0.4 < loop.time() - answered_at < REPLY_S

    serving(scenario, Setting(links=(LINK,), fast=fast, keep_alive_s=0.5, headers_timeout_s=30.0))


@WAYS
def test_a_body_that_nobody_needs_does_not_hold_the_connection(fast: bool) -> None:
    """What is sent behind an answer that is out already must end within the keep-alive time."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            head = PLAIN[:-2] + b"Content-Length: 100000\r\n\r\n"
            assert (await wire.ask(head)).startswith(b"HTTP/1.1 302 ")
            assert 0.3 < await _drip(wire, b"x" * 100_000, every_s=0.02) < REPLY_S

    serving(scenario, Setting(links=(LINK,), fast=fast, keep_alive_s=0.5))


@WAYS
@pytest.mark.parametrize("head", [PLAIN[:-2], POST + b"\r\n"], ids=["redirect", "create"])
def test_trailers_without_end_end_the_connection(head: bytes, fast: bool) -> None:
    """Behind a body in pieces there is room for as much as in front of it."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            wire.writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Endless: ")
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(REPLY_S):
                    while not (wire.reader.at_eof() or wire.writer.is_closing()):
                        wire.writer.write(b"x" * 1024)
                        await wire.writer.drain()
                        await asyncio.sleep(0.001)
            await wire.rest()
            assert port.protocols[0].transport.is_closing()
            assert port.read_bytes < 1 << 20

    serving(scenario, Setting(links=(LINK,), fast=fast))


@WAYS
def test_a_stop_ends_idle_connections_and_answers_what_was_asked(fast: bool) -> None:
    """A connection between two redirects is closed; one whose request waits gets its answer first, also for what it
    asked behind that."""

    async def scenario(port: Port) -> None:
        links = port.door.peers.links
        links.gate = asyncio.Event()
        async with port.dial() as idle, port.dial() as fresh, port.dial() as waiting:
            await idle.ask(PLAIN)
            await waiting.ask(PLAIN)
            waiting.writer.write(MISS + PLAIN)
            await until(lambda: bool(links.requests))
            port.stop.set()
            assert await idle.rest() == b""
            assert await fresh.rest() == b""
            links.gate.set()
            told = await waiting.rest()
            assert told.startswith(b"HTTP/1.1 404 ")
            assert b"connection: close\r\n" in told

    serving(scenario, Setting(links=(LINK,), fast=fast))


def test_ten_thousand_idle_connections_cost_little() -> None:
    """As many as the limit of open files allows, half of them behind a redirect: a few KiB each, and a redirect among
    them is answered as ever; when they end, so do their objects."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, (allowed - 400) // 2)

    async def scenario(port: Port) -> None:
        before = _rss()
        with contextlib.ExitStack() as stack:
            raws = []
            for number in range(count):
                raws.append(stack.enter_context(socket.create_connection(("127.0.0.1", port.number))))
                if number % 2:
                    raws[-1].sendall(PLAIN)
                if number % 500 == 499:
                    await until(lambda wanted=number + 1: len(port.protocols) >= wanted)  # type: ignore[misc]
            await until(lambda: port.read_bytes >= count // 2 * len(PLAIN))
            each = (_rss() - before) / count
            assert each < 24 << 10, f"{count} idle connections, {each:.0f} bytes each"
            async with port.dial() as wire:
                assert (await wire.ask(PLAIN)).startswith(b"HTTP/1.1 302 ")
            assert port.asked == []
        await until(lambda: all(each.transport.is_closing() for each in port.protocols))

    serving(scenario, Setting(links=(LINK,), keep_alive_s=120.0, headers_timeout_s=120.0))


def _rss() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
