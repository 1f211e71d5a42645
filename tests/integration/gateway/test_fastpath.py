"""Creates that go past ASGI: the same bytes on the wire as by the app, and nothing taken that the contract leaves."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from chassis.errors import DeadlineExceeded, InvalidArgument, ServiceError, Unavailable
from chassis.http_server import HttpServer
from chassis.telemetry import is_traceparent
from gateway.adapters.http_protocol import LimitedHttpProtocol
from gateway.fastpath import FastHttpProtocol, FastRedirects, fast_protocol
from gateway.handlers.metrics import DURATION
from tests.fakes.gateway_peers import KEY, make_link
from tests.fakes.gateway_ports import Door, DoorOptions, open_door

if TYPE_CHECKING:  # uvicorn's own module of types
    from uvicorn._types import ASGI3Application

_REPLY_S = 20.0
URL = "https://example.com/there"
BODY = json.dumps({"long_url": URL}).encode()


@dataclass
class Gate:
    """A port with a front door behind it; `app_starts`: the paths of what the app was asked."""

    door: Door
    port: int
    stop: asyncio.Event
    app_starts: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def dial(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """The bytes of the next answer."""
    async with asyncio.timeout(_REPLY_S):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            return head + await answer_of(reader)
        length = re.search(rb"content-length: (\d+)", head)
        return head + await reader.readexactly(int(length[1]) if length else 0)


async def until(true: Callable[[], bool]) -> None:
    """Waits until it is true."""
    async with asyncio.timeout(_REPLY_S):
        while not true():
            await asyncio.sleep(0.005)


def serving(
    scenario: Callable[[Gate], Awaitable[None]], *, fast: bool = True, options: DoorOptions | None = None
) -> None:
    """Runs a scenario at a real port; the key was verified a moment ago, as on a busy gateway."""

    async def main() -> None:
        stop, starts = asyncio.Event(), list[str]()
        async with open_door(options) as door, asyncio.TaskGroup() as tasks:
            door.cache.store(make_link())
            await door.client.post("/api/links", json={"long_url": URL})
            door.peers.links.links.clear()
            ratio = (options or DoorOptions()).keep_ratio
            made = fast_protocol(door.fast, FastRedirects(door.lookups, door.clicks, ratio), door.misses)

            class Watched(made):  # type: ignore[valid-type, misc]  # made at run time
                def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
                    starts.append(cycle.scope.get("path", ""))
                    FastHttpProtocol._start_asgi_task(self, cycle, app)

            protocol: type[asyncio.Protocol] = Watched if fast else LimitedHttpProtocol
            server = HttpServer(door.front, host="127.0.0.1", port=0, protocol=protocol)
            tasks.create_task(server.run(stop))
            await until(lambda: server.port != 0)
            try:
                await scenario(Gate(door, server.port, stop, starts))
            finally:
                stop.set()

    asyncio.run(main())


def request_of(*headers: str, body: bytes = BODY, line: str = "POST /api/links HTTP/1.1", key: str = KEY) -> bytes:
    """The bytes of a create; `headers` come in front of the usual ones."""
    lines = [line, "Host: lm.example", *headers, "Content-Type: application/json"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if not any(header.lower().startswith("transfer-encoding") for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
TRAILING = CHUNKED[:-2] + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
CASES: dict[str, tuple[list[bytes], bool]] = {  # what is sent, in pieces; whether it goes past the app
    "plain": ([request_of()], True),
    "all its fields": (
        [request_of(body=b'{"long_url":"https://e.com/\xc3\xa4","title":"\xe2\x80\xa8","tags":["a"]}')],
        True,
    ),
    "with an end": ([request_of(body=b'{"long_url":"https://e.com","expires_at":"2099-01-01T00:00:00Z"}')], True),
    "chunked": ([request_of("Transfer-Encoding: chunked", body=CHUNKED)], True),
    "behind another": ([request_of(), request_of()], True),
    "in pieces": ([request_of()[:-5], request_of()[-5:]], False),
    "with a query": ([request_of(line="POST /api/links?x=1 HTTP/1.1")], False),
    "by HTTP/1.0": ([request_of(line="POST /api/links HTTP/1.0")], False),
    "the last one": ([request_of("Connection: close")], False),
    "waiting to go on": ([request_of("Expect: 100-continue")], False),
    "with an upgrade": ([request_of("Connection: Upgrade", "Upgrade: foo")], False),
    "with a chosen code": ([request_of(body=b'{"long_url":"https://e.com","custom_code":"spring-sale"}')], False),
    "with a key of idempotency": ([request_of("Idempotency-Key: k-1")], False),
    "no JSON": ([request_of(body=b"{")], False),
    "no link": ([request_of(body=b'{"title":"x"}')], False),
    "nobody's key": ([request_of(key="lk_live_nobody")], False),
    "no key": ([request_of(key="")], False),
    "a key behind the body": ([request_of("Transfer-Encoding: chunked", body=TRAILING, key="")], False),
    "a key too many": ([request_of(f"X-API-Key: {KEY}x")], True),  # the documented route looks at Bearer first, too
    "another type": ([request_of("Content-Type: text/plain")], False),
    "too large": ([request_of(body=b'{"long_url":"%b"}' % (b"x" * 66_000))], False),
    "another path": ([request_of(line="POST /api/links/ HTTP/1.1")], False),
    "another method": ([request_of(line="PUT /api/links HTTP/1.1")], False),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways_write_the_same_bytes(name: str) -> None:
    """Whatever is asked, and however it arrives: the answer is the app's to the byte, and what link_service is asked
    is the same; only what is plain goes past the app."""
    pieces, past_the_app = CASES[name]
    told: list[list[bytes]] = []
    asked: list[list[object]] = []
    starts: list[int] = []

    async def scenario(gate: Gate) -> None:
        links = gate.door.peers.links
        links.requests.clear()
        found: list[bytes] = []
        async with gate.dial() as (reader, writer):
            for place, piece in enumerate(pieces):
                writer.write(piece)
                await writer.drain()
                if name == "in pieces" and place == 0:
                    await asyncio.sleep(0.05)  # a read of its own; were it none, the answer would be the same
                else:
                    found.append(re.sub(rb'"trace_id": ?"\w{32}"', b"", await answer_of(reader)))
        told.append(found)
        asked.append(list(links.requests))
        starts.append(len(gate.app_starts))

    serving(scenario)
    serving(scenario, fast=False)

    assert told[0] == told[1]
    assert asked[0] == asked[1]
    assert (starts[0] == 0) == past_the_app


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("unavailable", "Away.", retry_after_s=3),
        Unavailable("outcome_unknown", "Sent."),
        DeadlineExceeded("deadline_exceeded", "Late."),
        InvalidArgument("invalid_long_url", "No."),
    ],
)
def test_failures_are_told_alike(error: ServiceError) -> None:
    """What link_service refuses, or does not answer, is the same problem either way."""
    told: list[bytes] = []

    async def scenario(gate: Gate) -> None:
        gate.door.peers.links.fail["BatchCreateLinks"] = error
        async with gate.dial() as (reader, writer):
            writer.write(request_of())
            told.append(re.sub(rb'"trace_id": ?"\w{32}"', b"", await answer_of(reader)))
            gate.door.peers.links.fail.clear()
            writer.write(request_of())
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 201 ")

    serving(scenario)
    serving(scenario, fast=False)

    assert told[0] == told[1]
    assert b"problem+json" in told[0]


def test_answers_keep_the_order_of_the_requests() -> None:
    """Creates, a redirect and a page sent in one go on one connection are answered in that order, and only the first
    goes past the app: the others wait behind it."""

    async def scenario(gate: Gate) -> None:
        redirect = b"GET /aB3dE7x HTTP/1.1\r\nHost: lm.example\r\n\r\n"
        bodies = [json.dumps({"long_url": f"{URL}/{number}"}).encode() for number in range(3)]
        async with gate.dial() as (reader, writer):
            gate.door.peers.links.batch_gate = asyncio.Event()
            writer.write(
                request_of(body=bodies[0]) + redirect + request_of(body=bodies[1]) + request_of(body=bodies[2])
            )
            await until(lambda: len(gate.door.peers.links.batches) == 2)  # the first one is the key's
            gate.door.peers.links.batch_gate.set()
            answers = [await answer_of(reader) for _ in range(4)]

        assert [answer.split()[1] for answer in answers] == [b"201", b"302", b"201", b"201"]
        for answer, number in zip((answers[0], answers[2], answers[3]), range(3), strict=True):
            assert f"{URL}/{number}".encode() in answer
        assert gate.app_starts == ["/aB3dE7x", "/api/links", "/api/links"]

    serving(scenario)


def test_a_verdict_on_a_key_is_not_used_longer_than_a_second() -> None:
    """After a second the app asks about the key again; until then nothing goes past it."""

    async def scenario(gate: Gate) -> None:
        async with gate.dial() as (reader, writer):
            for passed_s, starts in ((0.0, 0), (1.5, 1), (0.0, 1)):
                gate.door.clock.elapsed_s += passed_s
                writer.write(request_of())
                assert (await answer_of(reader)).startswith(b"HTTP/1.1 201 ")
                assert len(gate.app_starts) == starts

    serving(scenario)


@pytest.mark.parametrize(("ratio", "starts"), [(1.0, 3), (0.0, 0)])
def test_a_trace_that_is_kept_is_the_apps(ratio: float, starts: int) -> None:
    """Only what makes no span goes past the app, and its traceparent says that it is not kept."""

    async def scenario(gate: Gate) -> None:
        async with gate.dial() as (reader, writer):
            for _ in range(3):
                writer.write(request_of())
                await answer_of(reader)
        assert len(gate.app_starts) == starts
        batches = gate.door.peers.links.batches[1:]
        if not starts:
            found = {item.traceparent for batch in batches for item in batch.items}
            assert len(found) == 3
            assert all(is_traceparent(each) and each.endswith("-00") for each in found)

    serving(scenario, options=DoorOptions(keep_ratio=ratio))


def test_it_is_counted_as_any_other_request() -> None:
    """The histogram of durations has it under its method, route and status."""

    def counted() -> float:
        found = DURATION.labels("POST", "/api/links", 201).collect()
        return next(sample.value for metric in found for sample in metric.samples if sample.name.endswith("_count"))

    async def scenario(gate: Gate) -> None:
        before = counted()
        async with gate.dial() as (reader, writer):
            writer.write(request_of())
            await answer_of(reader)
        assert counted() == before + 1
        assert gate.app_starts == []

    serving(scenario)


def test_a_stop_waits_for_the_answer_and_then_ends_the_connection() -> None:
    """A create that is under way when the process is told to stop is answered, with `connection: close`."""

    async def scenario(gate: Gate) -> None:
        links = gate.door.peers.links
        links.batch_gate = asyncio.Event()
        async with gate.dial() as (reader, writer), gate.dial() as (idle, _):
            writer.write(request_of())
            await until(lambda: len(links.batches) == 2)
            gate.stop.set()
            async with asyncio.timeout(_REPLY_S):
                assert await idle.read() == b""  # the stop has come to the connections
            links.batch_gate.set()
            answer = await answer_of(reader)
            assert answer.startswith(b"HTTP/1.1 201 ")
            assert b"connection: close\r\n" in answer
            assert await reader.read() == b""

    serving(scenario)


def test_who_hangs_up_takes_nobody_along() -> None:
    """The create of a client that is gone is made, as it would be by the app; the others get their answers."""

    async def scenario(gate: Gate) -> None:
        links = gate.door.peers.links
        links.batch_gate = asyncio.Event()
        async with gate.dial() as (reader, writer):
            async with gate.dial() as (_, leaving):
                leaving.write(request_of())
                await until(lambda: len(links.batches) == 2)
                writer.write(request_of())
            links.batch_gate.set()
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 201 ")
        assert len(links.links) == 2

    serving(scenario)
