"""Parts of a log, read from one offset to another on a real broker."""

import asyncio
import time

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message, Record, TopicPartition
from chassis.kafka.stretch import Bounds, LogStretches, open_log
from linkmesh.local.engines import KafkaEngine
from tests.engines import MakeTopic

SETTINGS = {"message.timestamp.type": "LogAppendTime"}
HELD_UP_S = 20  # a generous bound of what must end within its own 2 s


async def send(bootstrap: str, topic: str, partition: int, *values: bytes) -> None:
    """Records of one partition."""
    async with Producer(bootstrap, client_id="stretch-test", clock=SystemClock(), linger_ms=0) as producer:
        messages = [Message(topic, b"k", value, partition=partition) for value in values]
        sent = 0
        while sent < len(messages):
            sent += await producer.send_in_order(messages[sent:], timeout_s=10)


async def all_of(log: LogStretches, partition: TopicPartition, start: int, end: int) -> list[Record]:
    """What a stretch has."""
    return [record async for part in log.read(partition, start, end) for record in part]


@pytest.mark.rule("R8")
def test_a_stretch_is_read_whole_in_order_and_nothing_behind_it(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """R8: from the first offset to before the last; also over several fetches; nothing for an empty one."""
    topic = kafka_topics("stretch", partitions=2, config=SETTINGS)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    large = [b"%06d" % number + b"x" * 4000 for number in range(700)]  # three fetches

    async def main() -> None:
        await send(kafka.bootstrap, topic, 0, *large)
        await send(kafka.bootstrap, topic, 1, b"only")
        async with open_log(kafka.bootstrap, client_id="stretch") as log:
            assert await log.bounds(topic) == {first: Bounds(0, 700), second: Bounds(0, 1)}
            assert [record.value for record in await all_of(log, first, 0, 700)] == large
            assert [record.offset for record in await all_of(log, first, 300, 310)] == list(range(300, 310))
            assert [record.value for record in await all_of(log, second, 0, 1)] == [b"only"]
            assert await all_of(log, first, 5, 5) == []
            assert [record.offset for record in await all_of(log, first, 699, 700)] == [699]

    asyncio.run(main())


@pytest.mark.rule("R8")
def test_time_is_the_brokers(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """R8: the newest record of all partitions, and the first of each from a moment on."""
    topic = kafka_topics("stretch", partitions=3, config=SETTINGS)

    async def main() -> None:
        await send(kafka.bootstrap, topic, 0, b"1")
        await SystemClock().sleep(0.05)
        await send(kafka.bootstrap, topic, 1, b"2", b"3")
        async with open_log(kafka.bootstrap, client_id="stretch") as log:
            bounds = await log.bounds(topic)
            old = (await all_of(log, TopicPartition(topic, 0), 0, 1))[0].timestamp_ms
            new = (await all_of(log, TopicPartition(topic, 1), 0, 2))[-1].timestamp_ms

            assert old < new
            assert await log.newest_ms(bounds) == new
            assert await log.offsets_at(bounds, old) == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}
            assert await log.offsets_at(bounds, old + 1) == {TopicPartition(topic, 1): 0}
            assert await log.offsets_at(bounds, new + 1) == {}

    asyncio.run(main())


@pytest.mark.rule("R8")
def test_a_topic_that_is_empty_or_absent_says_so(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """R8: no newest record, no bounds; neither hangs."""
    topic = kafka_topics("stretch", partitions=1, config=SETTINGS)

    async def main() -> None:
        async with open_log(kafka.bootstrap, client_id="stretch") as log:
            bounds = await log.bounds(topic)
            assert bounds == {TopicPartition(topic, 0): Bounds(0, 0)}
            assert await log.newest_ms(bounds) is None
            assert await log.bounds("there-is-no-such-topic") == {}

    asyncio.run(main())


@pytest.mark.rule("R8", "P7")
def test_a_broker_that_hangs_is_not_waited_for_longer_than_told(kafka_fresh: KafkaEngine) -> None:
    """R8: each step ends with Unavailable, closing included; and so does opening while it is away."""

    async def main() -> None:
        async with open_log(kafka_fresh.bootstrap, client_id="stretch", timeout_s=2) as log:
            kafka_fresh.pause()
            started = time.monotonic()
            try:
                with pytest.raises(Unavailable):
                    await log.bounds("any")
            finally:
                kafka_fresh.resume()
            assert time.monotonic() - started < HELD_UP_S
        kafka_fresh.kill()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            async with open_log(kafka_fresh.bootstrap, client_id="stretch", timeout_s=2):
                pass
        assert time.monotonic() - started < HELD_UP_S

    asyncio.run(main())
