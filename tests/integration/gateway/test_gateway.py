"""The whole gateway on a real Redis and a real broker, the other processes played over real gRPC."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import httpx
import pytest

from chassis.clock import SystemClock
from chassis.kafka.admin import Admin
from chassis.kafka.record import Record
from chassis.redis import open_redis
from contracts.cache import encode_entry, url_key
from contracts.link import Link, LinkState
from contracts.topics import ANALYTICS_EVENTS
from gateway.adapters.spool_stock import SMALL_BYTES
from linkmesh.local.engines import KafkaEngine, ValkeyEngine
from linkmesh.local.storage import ensure_topics
from shortener.events.v1.click_events_pb2 import (
    VISITOR_CLASS_BOT,
    VISITOR_CLASS_HUMAN,
    LinkAccessed,
    LinksAccessed,
    SpoolTotals,
)
from tests.fakes.gateway_peers import AT, FakePeers, make_link
from tests.integration.gateway.process import running_gateway

BROWSER = {"user-agent": "Mozilla/5.0 Chrome/143.0"}
_ARRIVAL_S = 30.0
_MORE_THAN_FIT = 150  # clicks of some 700 bytes into 64 KiB


@pytest.fixture(scope="module")
def broker(kafka: KafkaEngine) -> KafkaEngine:
    """The session's broker, with our topics."""
    asyncio.run(ensure_topics(kafka.bootstrap))
    return kafka


async def store(engine: ValkeyEngine, link: Link) -> None:
    """Puts a link where link_service would."""
    async with open_redis(engine.url, timeout_s=5) as redis:
        await redis.set(url_key(link.key), encode_entry(link))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A click, the record that brought it, and its sequence in its spool."""

    click: LinkAccessed
    record: Record
    spool_id: str
    sequence: int


async def clicks_of(bootstrap: str, code: str, count: int) -> list[Arrival]:
    """The first `count` clicks of a code, as soon as they are there."""
    async with Admin(bootstrap, client_id="tests") as admin, asyncio.timeout(_ARRIVAL_S):
        while True:
            records = await admin.records_since([ANALYTICS_EVENTS.name], AT.replace(year=2020))
            found = [each for record in records for each in arrivals_in(record) if each.click.link_key == code]
            if len(found) >= count:
                return sorted(found, key=lambda each: (each.record.offset, each.sequence))
            await SystemClock().sleep(0.1)


def arrivals_in(record: Record) -> list[Arrival]:
    """The clicks of a record; none if it is one of totals."""
    if record.header("ce_type") != LinksAccessed.DESCRIPTOR.full_name:
        return []
    message = LinksAccessed.FromString(record.value)
    assert record.key == message.spool_id.encode()
    return [
        Arrival(click, record, message.spool_id, number)
        for number, click in enumerate(message.clicks, message.first_sequence)
    ]


def test_create_redirect_count_delete(tmp_path: Path, broker: KafkaEngine, valkey: ValkeyEngine) -> None:
    """A link made over HTTP redirects, each redirect leaves a click on its code's partition, a delete ends it."""

    async def main() -> None:
        peers = FakePeers()
        async with running_gateway(peers, tmp_path, kafka=broker.bootstrap, redis=valkey.url) as gateway:
            body = {"long_url": "https://example.com/x", "custom_code": "whole-way"}
            made = await gateway.client.post("/api/links", json=body)
            by_service = await gateway.client.get("/whole-way", headers=BROWSER)
            await store(valkey, peers.links.links["whole-way"])
            asked = len(peers.links.requests)
            by_redis = await gateway.client.head("/whole-way", headers=BROWSER)
            deleted = await gateway.client.delete("/api/links/whole-way")
            await store(valkey, peers.links.links["whole-way"])
            gone = await gateway.client.get("/whole-way")
            arrivals = await clicks_of(broker.bootstrap, "whole-way", 2)

        assert (made.status_code, by_service.status_code, by_redis.status_code) == (201, 302, 302)
        assert (deleted.status_code, gone.status_code) == (204, 410)
        assert [type(request).__name__ for request in peers.links.requests[asked:]] == ["DeleteLinkRequest"]
        assert {each.record.partition for each in arrivals} == {crc32(b"whole-way") % ANALYTICS_EVENTS.partitions}
        assert len({each.spool_id for each in arrivals}) == 1
        clicks = [each.click for each in arrivals]
        assert [click.visitor_class for click in clicks] == [VISITOR_CLASS_HUMAN, VISITOR_CLASS_BOT]
        assert {click.user_id for click in clicks} == {"alice"}
        assert not any(b"127.0.0.1" in each.record.value for each in arrivals)

    asyncio.run(main())


@pytest.mark.rule("P5")
def test_redirects_go_on_without_redis(tmp_path: Path, broker: KafkaEngine, valkey_fresh: ValkeyEngine) -> None:
    """Redis hung, then killed: what the gateway has kept lives five seconds more, then every redirect is answered by
    link_service, none later than both deadlines."""

    async def main() -> None:
        peers, loop = FakePeers(), asyncio.get_running_loop()
        peers.links.links["no-redis"] = make_link("no-redis")
        async with running_gateway(peers, tmp_path, kafka=broker.bootstrap, redis=valkey_fresh.url) as gateway:
            await store(valkey_fresh, make_link("no-redis", state=LinkState.DELETED))
            async with asyncio.timeout(20):  # Redis decides while it is there; a busy machine may miss its 50 ms
                while (await gateway.client.get("/no-redis")).status_code != 410:
                    await asyncio.sleep(0.1)
            slowest_s = 0.0
            for away in (valkey_fresh.pause, valkey_fresh.resume, valkey_fresh.kill):
                if away == valkey_fresh.resume:
                    away()
                    continue
                away()
                async with asyncio.timeout(20):
                    while (await gateway.client.get("/no-redis")).status_code == 410:
                        await asyncio.sleep(0.1)
                for _ in range(10):
                    began = loop.time()
                    assert (await gateway.client.get("/no-redis")).status_code == 302
                    slowest_s = max(slowest_s, loop.time() - began)

        assert slowest_s < 1  # 50 ms and 300 ms, on a machine that may be busy

    asyncio.run(main())


@pytest.mark.rule("P5")
def test_redirects_and_their_clicks_outlive_a_broker_that_is_away(
    tmp_path: Path, kafka_fresh: KafkaEngine, valkey: ValkeyEngine
) -> None:
    """Kafka hung: redirects are as quick as ever; their clicks wait, and arrive when it answers again."""

    async def main() -> None:
        await ensure_topics(kafka_fresh.bootstrap)
        await store(valkey, make_link("no-kafka"))
        loop = asyncio.get_running_loop()
        async with running_gateway(FakePeers(), tmp_path, kafka=kafka_fresh.bootstrap, redis=valkey.url) as gateway:
            kafka_fresh.pause()
            try:
                began = loop.time()
                for _ in range(20):
                    assert (await gateway.client.get("/no-kafka")).status_code == 302
                spent_s = loop.time() - began
            finally:
                kafka_fresh.resume()
            arrivals = await clicks_of(kafka_fresh.bootstrap, "no-kafka", 20)

        assert spent_s < 2
        assert [each.sequence for each in arrivals][:1] == [1]
        assert {each.sequence for each in arrivals} == set(range(1, 21))

    asyncio.run(main())


async def told(bootstrap: str, spool_id: str) -> tuple[int, int]:
    """The first totals of a spool: recorded, dropped."""
    async with Admin(bootstrap, client_id="tests") as admin, asyncio.timeout(_ARRIVAL_S):
        while True:
            for record in await admin.records_since([ANALYTICS_EVENTS.name], AT.replace(year=2020)):
                if record.header("ce_type") == SpoolTotals.DESCRIPTOR.full_name:
                    totals = SpoolTotals.FromString(record.value)
                    if totals.spool_id == spool_id:
                        return totals.recorded, totals.dropped
            await SystemClock().sleep(0.1)


@pytest.mark.rule("S6", "S8")
def test_clicks_beyond_the_bound_are_counted_as_dropped(
    tmp_path: Path, kafka_fresh: KafkaEngine, valkey: ValkeyEngine
) -> None:
    """With Kafka away and no room left a redirect is answered all the same, and /metrics tells what was lost."""

    async def main() -> None:
        await store(valkey, make_link("dropped"))
        kafka_fresh.kill()
        wordy = BROWSER | {"referer": "https://news.example/" + "x" * 480}
        async with running_gateway(
            FakePeers(),
            tmp_path,
            kafka=kafka_fresh.bootstrap,
            redis=valkey.url,
            spool_bytes_max=SMALL_BYTES * ANALYTICS_EVENTS.partitions,  # one small segment for each partition
        ) as gateway:
            before = await _metric(gateway.admin_port, "clicks_dropped_total")
            for _ in range(_MORE_THAN_FIT):
                assert (await gateway.client.get("/dropped", headers=wordy)).status_code == 302

            dropped = int(await _metric(gateway.admin_port, "clicks_dropped_total") - before)
            queued = int(await _metric(gateway.admin_port, "clicks_queued"))
            assert dropped > 0
            assert queued == _MORE_THAN_FIT - dropped
            await kafka_fresh.start()
            await ensure_topics(kafka_fresh.bootstrap)
            arrivals = await clicks_of(kafka_fresh.bootstrap, "dropped", queued)
            assert {each.sequence for each in arrivals} == set(range(1, queued + 1))
            assert await told(kafka_fresh.bootstrap, arrivals[0].spool_id) == (queued, dropped)

    asyncio.run(main())


def test_requests_in_flight_are_answered_at_the_end(tmp_path: Path, broker: KafkaEngine, valkey: ValkeyEngine) -> None:
    """At stop a create that link_service has not answered yet gets its 201; its click-less process then ends."""

    async def main() -> None:
        peers = FakePeers()
        peers.links.gate = asyncio.Event()
        async with (
            running_gateway(peers, tmp_path, kafka=broker.bootstrap, redis=valkey.url) as gateway,
            asyncio.TaskGroup() as tasks,
        ):
            made = tasks.create_task(gateway.client.post("/api/links", json={"long_url": "https://example.com"}))
            async with asyncio.timeout(10):
                while not peers.links.requests:
                    await asyncio.sleep(0.01)
                gateway.stop.set()
                async with httpx.AsyncClient() as probe:
                    while (await probe.get(f"http://127.0.0.1:{gateway.admin_port}/readyz")).status_code == 200:
                        await asyncio.sleep(0.01)
            peers.links.gate.set()

        assert made.result().status_code == 201

    asyncio.run(main())


async def _metric(port: int, name: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))
