"""What Kafka tells about link events that the writer has not written yet [K2]."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.partitions import partition_of
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from contracts.link import LinkKey
from contracts.topics import LINKS_EVENTS
from link_service.adapters.event_log_kafka import KafkaEventLog
from linkmesh.local.engines import KafkaEngine
from linkmesh.local.storage import ensure_topics
from tests.integration.link_service.running import the_writer_catches_up


@pytest.mark.rule("K2")
def test_the_oldest_unwritten_event_of_a_links_own_partition_is_found(kafka_fresh: KafkaEngine) -> None:
    """K2: the record at the group's committed offset, in the link's own partition; Kafka away is an error."""

    async def scenario() -> None:
        clock = SystemClock()
        bootstrap = kafka_fresh.bootstrap
        await ensure_topics(bootstrap)
        key = LinkKey("my-code")
        elsewhere = next(
            LinkKey(other)
            for other in (f"code-{number}" for number in range(100))
            if partition_of(other.encode(), LINKS_EVENTS.partitions)
            != partition_of(key.encode(), LINKS_EVENTS.partitions)
        )
        async with (
            Admin(bootstrap, client_id="tests") as admin,
            Producer(bootstrap, client_id="t", clock=clock) as sender,
        ):
            log = KafkaEventLog(admin)
            assert await log.oldest_unwritten(key) is None
            messages = [Message(LINKS_EVENTS.name, key.encode(), b"event")] * 2
            assert await sender.send_in_order(messages, timeout_s=10) == 2

            oldest = await log.oldest_unwritten(key)

            assert oldest is not None
            assert abs(oldest - datetime.now(UTC)) < timedelta(seconds=60)
            assert await log.oldest_unwritten(elsewhere) is None
            await the_writer_catches_up(bootstrap)
            assert await log.oldest_unwritten(key) is None
            assert await sender.send_in_order(messages, timeout_s=10) == 2
            newer = await log.oldest_unwritten(key)
            assert newer is not None
            assert newer > oldest
        kafka_fresh.kill()
        async with Admin(bootstrap, client_id="tests", timeout_s=1) as admin:
            with pytest.raises(Unavailable):
                await KafkaEventLog(admin).oldest_unwritten(key)

    asyncio.run(scenario())
