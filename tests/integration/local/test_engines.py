"""The engines as the rest of the tests rely on them: ready when started, durable when killed, gone when stopped."""

import asyncio

import psutil
import pytest
from redis.asyncio import Redis

from linkmesh.local.engines import DynamoDBEngine, KafkaEngine, ValkeyEngine, ZipkinEngine
from linkmesh.local.probes import http_status, kafka_ready
from tests.engines import MakeTopic


@pytest.mark.rule("R6")
def test_valkey_keeps_what_it_acknowledged_through_a_kill(valkey_fresh: ValkeyEngine) -> None:
    """R6: with appendfsync always an acknowledged write survives kill -9, and the settings say so."""

    async def scenario() -> None:
        async with Redis.from_url(valkey_fresh.url) as client:
            assert await client.config_get("appendfsync") == {"appendfsync": "always"}
            assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            await client.set("k", "v")

        valkey_fresh.kill()
        assert valkey_fresh.pid is None
        await valkey_fresh.start()

        async with Redis.from_url(valkey_fresh.url) as client:
            assert await client.get("k") == b"v"

    asyncio.run(scenario())


def test_a_paused_engine_hangs_and_a_resumed_one_answers(dynamodb_fresh: DynamoDBEngine) -> None:
    """pause is a hang, not a refusal: connections are taken and nothing is said until resume."""

    async def scenario() -> None:
        dynamodb_fresh.pause()
        assert not await dynamodb_fresh.is_ready()
        dynamodb_fresh.resume()
        assert await dynamodb_fresh.is_ready()

    asyncio.run(scenario())


def test_kafka_serves_topics(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """A started broker lists itself in its metadata and takes topics under names of the test's own."""
    first, second = kafka_topics("t", partitions=2), kafka_topics("t")

    assert first != second
    assert asyncio.run(kafka_ready(kafka.port))


def test_zipkin_listens_on_loopback_only(zipkin: ZipkinEngine) -> None:
    """Every port of the trace store is bound to 127.0.0.1; its page answers."""
    assert zipkin.pid is not None
    listening = [c.laddr for c in psutil.Process(zipkin.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]

    assert {address.port for address in listening} == {zipkin.port}
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert asyncio.run(http_status(zipkin.port, "/zipkin/")) == 200
