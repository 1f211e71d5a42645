"""Live clicks through the real gateway: uvicorn, a real call behind it, clients that leave, stall, or stay."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from chassis.errors import Unavailable
from contracts.link_codec import timestamp
from linkmesh.local.engines import KafkaEngine, ValkeyEngine
from linkmesh.local.storage import ensure_topics
from shortener.analytics.v1 import analytics_service_pb2 as pb
from tests.fakes.gateway_peers import AT, KEY, FakePeers
from tests.integration.gateway.process import RunningGateway, running_gateway

PATH = "/api/links/aB3dE7x/clicks/live"
Scenario = Callable[[RunningGateway, FakePeers], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, kafka: KafkaEngine, valkey: ValkeyEngine) -> Callable[[Scenario], None]:
    """Runs a scenario at a gateway whose analytics says at once that a watch has begun."""

    async def main(scenario: Scenario) -> None:
        await ensure_topics(kafka.bootstrap)
        peers = FakePeers()
        peers.analytics.live.put_nowait(pb.WatchClicksResponse(counted_until=timestamp(AT)))
        async with running_gateway(peers, tmp_path, kafka=kafka.bootstrap, redis=valkey.url) as gateway:
            await scenario(gateway, peers)

    return lambda scenario: asyncio.run(main(scenario))


def news(number: int = 1, *, text: str = "") -> pb.WatchClicksResponse:
    """So many clicks."""
    click = pb.LiveClick(at=timestamp(AT), visitor_class="human", referrer=text)
    return pb.WatchClicksResponse(clicks=[click] * number)


async def polled(condition: Callable[[], bool]) -> None:
    """Returns once it is so; fails after a while."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def test_a_stream_flows_and_ends_with_its_client(run: Callable[[Scenario], None]) -> None:
    """Each event arrives before the next is made; when the client closes the connection, the call of analytics ends."""

    async def scenario(gateway: RunningGateway, peers: FakePeers) -> None:
        async with gateway.client.stream("GET", PATH) as answer:
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
            chunks = answer.aiter_text()
            assert (await anext(chunks)).startswith("retry: ")
            for _ in range(3):
                peers.analytics.live.put_nowait(news())
                async with asyncio.timeout(10):
                    assert (await anext(chunks)).startswith("event: click\ndata: {")
            assert peers.analytics.watching == 1
        await polled(lambda: peers.analytics.watching == 0)

    run(scenario)


def test_other_requests_do_not_wait_for_streams(run: Callable[[Scenario], None]) -> None:
    """A gateway with open streams answers as ever; an error behind the beginning is told in the stream."""

    async def scenario(gateway: RunningGateway, peers: FakePeers) -> None:
        async with gateway.client.stream("GET", PATH) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 3000"
            assert (await gateway.client.get("/api/links/aB3dE7x/stats")).status_code == 200
            peers.analytics.live.put_nowait(Unavailable("unavailable", "Away."))
            rest = [line async for line in lines if line]
        assert rest[-2:] == ["event: problem", 'data: {"code":"unavailable","detail":"Away."}']

    run(scenario)


def test_a_gateway_that_stops_ends_its_streams(run: Callable[[Scenario], None]) -> None:
    """At once and well, not after the ten seconds that requests are given."""

    async def scenario(gateway: RunningGateway, peers: FakePeers) -> None:
        loop = asyncio.get_running_loop()
        async with gateway.client.stream("GET", PATH) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 3000"
            began = loop.time()
            gateway.stop.set()
            assert [line async for line in lines if line.startswith("event")] == []
            assert loop.time() - began < 8
        await polled(lambda: peers.analytics.watching == 0)

    run(scenario)


def test_a_client_that_reads_nothing_stops_the_flow(run: Callable[[Scenario], None]) -> None:
    """What it does not read is not taken from analytics for ever: neither process fills its memory."""

    async def scenario(gateway: RunningGateway, peers: FakePeers) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)  # noqa: FBT003 (a socket's own signature)
            await loop.sock_connect(client, ("127.0.0.1", gateway.port))
            request = f"GET {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n"
            await loop.sock_sendall(client, request.encode())
            await polled(lambda: peers.analytics.watching == 1)
            for _ in range(2_000):  # 20 kB each
                peers.analytics.live.put_nowait(news(100, text="x" * 100))
            before = -1
            async with asyncio.timeout(20):
                while peers.analytics.live.qsize() != before:  # until a look finds as many as the one before
                    before = peers.analytics.live.qsize()
                    await asyncio.sleep(0.5)
            assert before > 1_000
        await polled(lambda: peers.analytics.watching == 0)

    run(scenario)


def test_a_stream_needs_a_key(run: Callable[[Scenario], None]) -> None:
    """401 as everywhere, and analytics is not asked."""

    async def scenario(gateway: RunningGateway, peers: FakePeers) -> None:
        async with httpx.AsyncClient(base_url=gateway.client.base_url) as stranger:
            answer = await stranger.get(PATH)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert peers.analytics.requests == []

    run(scenario)
