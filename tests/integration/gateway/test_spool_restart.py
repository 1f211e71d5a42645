"""A real broker that is away when a gateway ends: the next gateway on the same disk sends its clicks, in order."""

import asyncio
from pathlib import Path

import pytest

from chassis.redis import open_redis
from contracts.cache import encode_entry, url_key
from contracts.link import Link
from linkmesh.local.engines import KafkaEngine, ValkeyEngine
from linkmesh.local.storage import ensure_topics
from tests.fakes.gateway_peers import FakePeers, make_link
from tests.integration.gateway.process import running_gateway
from tests.integration.gateway.test_gateway import BROWSER, clicks_of, told

_CLICKS = 40


async def _store(engine: ValkeyEngine, link: Link) -> None:
    async with open_redis(engine.url, timeout_s=5) as redis:
        await redis.set(url_key(link.key), encode_entry(link))


@pytest.mark.rule("S1", "S3", "S8", "P4", "P5")
def test_clicks_outlive_their_gateway_and_a_broker_that_is_away(
    tmp_path: Path, kafka_fresh: KafkaEngine, valkey: ValkeyEngine
) -> None:
    """Two gateways, one after the other, redirect while Kafka is away, and end in order; the third finds Kafka back:
    all clicks arrive, each spool's in its order and dense from 1, and the totals of each say the same."""

    async def main() -> None:
        await ensure_topics(kafka_fresh.bootstrap)
        await _store(valkey, make_link("restart"))
        kafka_fresh.kill()
        for _ in range(2):
            async with running_gateway(FakePeers(), tmp_path, kafka=kafka_fresh.bootstrap, redis=valkey.url) as gateway:
                for _ in range(_CLICKS):
                    assert (await gateway.client.get("/restart", headers=BROWSER)).status_code == 302
        await kafka_fresh.start()
        async with running_gateway(FakePeers(), tmp_path, kafka=kafka_fresh.bootstrap, redis=valkey.url):
            arrivals = await clicks_of(kafka_fresh.bootstrap, "restart", 2 * _CLICKS)
            spools = list(dict.fromkeys(each.spool_id for each in arrivals))
            books = [await told(kafka_fresh.bootstrap, spool) for spool in spools]

        assert [each.spool_id for each in arrivals] == sorted(each.spool_id for each in arrivals)
        assert len(spools) == 2
        for spool in spools:
            assert [each.sequence for each in arrivals if each.spool_id == spool] == list(range(1, _CLICKS + 1))
        assert books == [(_CLICKS, 0)] * 2
        assert list((tmp_path / "spool").iterdir()) == []

    asyncio.run(main())
