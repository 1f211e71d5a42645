"""A commit that nobody waits for any more, at a broker that hangs."""

import asyncio
import gc
import time
from collections.abc import Collection, Mapping

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.record import TopicPartition
from chassis.kafka.source_kafka import KafkaSource, Subscription
from linkmesh.local.engines import KafkaEngine
from tests.engines import create_topic

LIMIT_S = 60.0
TOPIC, GROUP = "hung", "committers"
HERE = TopicPartition(TOPIC, 0)


class Member:
    """A listener that waits for its partitions."""

    def __init__(self) -> None:
        self.joined = asyncio.Event()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """It is in its group."""
        self.joined.set()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing to do."""


async def joined(kafka: KafkaEngine) -> KafkaSource:
    """A source that has its partition."""
    member = Member()
    source = KafkaSource(Subscription(kafka.bootstrap, GROUP, [TOPIC], "t"), clock=SystemClock())
    await source.open(member)
    async with asyncio.timeout(LIMIT_S):
        while not member.joined.is_set():
            await source.poll(timeout_s=0.1, records_max=1)
    return source


async def committed(source: KafkaSource) -> None:
    """A commit works, sooner or later: the group may just be settling."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            await source.poll(timeout_s=0.1, records_max=1)
            await source.commit({HERE: 0})
        except Unavailable:
            assert time.monotonic() < deadline, "no commit works"
        else:
            return


async def given_up(source: KafkaSource) -> None:
    """A commit that hangs, and nobody waits for it to the end."""
    with pytest.raises((TimeoutError, Unavailable)):
        async with asyncio.timeout(0.3):
            await source.commit({HERE: 0})


@pytest.mark.rule("C1")
def test_a_commit_that_was_given_up_leaves_nothing_behind(kafka_fresh: KafkaEngine) -> None:
    """What nobody waits for is over: it is not reported later as an error that was never looked at, one for each commit
    of an outage, and commits go on once the broker does."""
    reports: list[str] = []

    def note(_: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        reports.append(str(context.get("message")))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        await create_topic(kafka_fresh.bootstrap, TOPIC, 1, {})
        source = await joined(kafka_fresh)
        await committed(source)
        tasks_before = len(asyncio.all_tasks())

        kafka_fresh.pause()
        try:
            for _ in range(3):
                await given_up(source)
            assert len(asyncio.all_tasks()) <= tasks_before + 1  # a fetch or a heartbeat of the library's own
        finally:
            kafka_fresh.resume()

        await committed(source)
        await source.close()
        gc.collect()

    asyncio.run(main())
    gc.collect()

    assert reports == []


@pytest.mark.rule("C1")
def test_a_source_that_is_closed_while_the_broker_hangs_says_nothing_later(kafka_fresh: KafkaEngine) -> None:
    """The same, when the process ends meanwhile."""
    reports: list[str] = []

    def note(_: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        reports.append(str(context.get("message")))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        await create_topic(kafka_fresh.bootstrap, TOPIC, 1, {})
        source = await joined(kafka_fresh)
        await committed(source)
        kafka_fresh.pause()
        try:
            await given_up(source)
            await source.close()
        finally:
            kafka_fresh.resume()
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    gc.collect()

    assert reports == []
