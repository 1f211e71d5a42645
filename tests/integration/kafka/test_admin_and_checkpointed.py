"""Admin's answers, and the checkpointed runner, on a real broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin, TopicSpec
from chassis.kafka.consumers import Subscription, checkpointed_consumer
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message, Position, Record, TopicPartition
from linkmesh.local.engines import KafkaEngine
from linkmesh.local.ports import free_port
from tests.engines import MakeTopic

BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
LIMIT_S = 30.0


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0.02)


async def send(bootstrap: str, topic: str, count: int, partitions: int) -> None:
    """So many records, spread over the partitions in turn."""
    async with Producer(bootstrap, client_id="t", clock=SystemClock()) as producer:
        messages = [Message(topic, b"k", str(n).encode(), partition=n % partitions) for n in range(count)]
        assert await producer.send_in_order(messages, timeout_s=LIMIT_S) == count


@dataclass
class Keeping:
    """A handler whose store, a dict, outlives it; it refuses while `away`."""

    store: dict[TopicPartition, int]
    handled: list[Record] = field(default_factory=list)
    owned: set[TopicPartition] = field(default_factory=set)
    away: bool = False

    async def assigned(self, partitions: Collection[TopicPartition]) -> Position:
        if self.away:
            raise Unavailable("unavailable", "the store is away")
        self.owned |= set(partitions)
        return {tp: self.store[tp] for tp in partitions if tp in self.store}

    async def handle(self, records: Sequence[Record]) -> None:
        if self.away:
            raise Unavailable("unavailable", "the store is away")
        for record in records:
            assert record.offset == self.store.get(record.topic_partition, 0), "a gap or a repeat"
            self.store[record.topic_partition] = record.offset + 1
            self.handled.append(record)

    async def revoked(self, partitions: Collection[TopicPartition]) -> Position:
        self.owned -= set(partitions)
        return {tp: self.store[tp] for tp in partitions if tp in self.store}

    async def checkpoint(self) -> Position:
        return {tp: self.store[tp] for tp in self.owned if tp in self.store}


@asynccontextmanager
async def consuming(
    bootstrap: str, topic: str, handler: Keeping, name: str = "127.0.0.1:7004", *, assign_all: bool = False
) -> AsyncIterator[list[tuple[bool, str]]]:
    """A checkpointed consumer for the length of the block; yields what it told of its readiness."""
    ready: list[tuple[bool, str]] = []
    runner = checkpointed_consumer(
        Subscription(bootstrap, f"group-of-{topic}", [topic], name),
        handler=handler,
        clock=SystemClock(),
        set_ready=lambda met, why: ready.append((met, why)),
        assign_all=assign_all,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runner.run(stop))
        try:
            yield ready
        finally:
            stop.set()


@pytest.mark.rule("C4", "A4")
def test_position_comes_from_the_store_and_kafka_is_told(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """Two owners after each other, a store that is away in between, and Kafka's own commit never rules."""
    topic = kafka_topics("checkpointed", partitions=3, config=BROKER_TIME)

    async def scenario() -> None:
        store: dict[TopicPartition, int] = {}
        await send(kafka.bootstrap, topic, 300, 3)
        first = Keeping(store)
        async with consuming(kafka.bootstrap, topic, first) as ready:
            await until(lambda: len(first.handled) == 300)
            first.away = True
            await send(kafka.bootstrap, topic, 300, 3)
            await until(lambda: ready[-1] == (False, "a dependency is away"))
            first.away = False
            await until(lambda: len(first.handled) == 600)
        async with Admin(kafka.bootstrap, client_id="t") as admin:
            committed = await admin.committed(f"group-of-{topic}")
        for partition in store:
            store[partition] = 150  # the store was restored from a backup: older than Kafka's commit
        second = Keeping(store)
        async with consuming(kafka.bootstrap, topic, second):
            await until(lambda: len(second.handled) == 150)

        assert committed == {TopicPartition(topic, n): 200 for n in range(3)}
        assert {record.offset for record in second.handled} == set(range(150, 200))

    asyncio.run(scenario())


def owned_by(owners: Mapping[TopicPartition, str], name: str) -> set[TopicPartition]:
    """What this one owns."""
    return {tp for tp, owner in owners.items() if owner == name}


@pytest.mark.rule("A7")
def test_owners_are_known_by_their_client_id(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """The group description names the address of each partition's owner, which share them, and none when all left."""
    topic = kafka_topics("owners", partitions=4, config=BROKER_TIME)

    async def scenario() -> None:
        store: dict[TopicPartition, int] = {}
        one, two = Keeping(store), Keeping(store)
        async with Admin(kafka.bootstrap, client_id="t") as admin:
            async with (
                consuming(kafka.bootstrap, topic, one, "127.0.0.1:1"),
                consuming(kafka.bootstrap, topic, two, "127.0.0.1:2"),
            ):
                async with asyncio.timeout(LIMIT_S):  # members joining one by one rebalance more than once
                    owners = await admin.group_members(f"group-of-{topic}")
                    while len(two.owned) != 2 or (one.owned, two.owned) != (
                        owned_by(owners, "127.0.0.1:1"),
                        owned_by(owners, "127.0.0.1:2"),
                    ):
                        owners = await admin.group_members(f"group-of-{topic}")
            afterwards = await admin.group_members(f"group-of-{topic}")

        assert sorted(owners.values()) == ["127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:2"]
        assert afterwards == {}

    asyncio.run(scenario())


@pytest.mark.rule("B2")
def test_assign_all_on_a_real_broker(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """One process reads every partition without joining, and commits at the end so that lag tools see it."""
    topic = kafka_topics("all", partitions=3, config=BROKER_TIME)

    async def scenario() -> None:
        await send(kafka.bootstrap, topic, 30, 3)
        handler = Keeping({})
        async with Admin(kafka.bootstrap, client_id="t") as admin:
            async with consuming(kafka.bootstrap, topic, handler, assign_all=True):
                await until(lambda: len(handler.handled) == 30)
                members = await admin.group_members(f"group-of-{topic}")
            lag = await admin.lag(f"group-of-{topic}", [topic], now=SystemClock().now())

        assert members == {}
        assert {state.records for state in lag.values()} == {0}

    asyncio.run(scenario())


@pytest.mark.rule("P7")
def test_a_checkpointed_consumer_survives_its_broker(kafka_fresh: KafkaEngine) -> None:
    """kill -9 and restart of the broker: it goes on within 30 s, without a gap or a repeat."""

    async def scenario() -> None:
        async with Admin(kafka_fresh.bootstrap, client_id="t", timeout_s=20) as admin:
            await admin.ensure_topics([TopicSpec("t", 2, settings=BROKER_TIME)])
        handler = Keeping({})
        async with consuming(kafka_fresh.bootstrap, "t", handler):
            await send(kafka_fresh.bootstrap, "t", 100, 2)
            await until(lambda: len(handler.handled) == 100)
            kafka_fresh.kill()
            await kafka_fresh.start()
            began = time.monotonic()
            await send(kafka_fresh.bootstrap, "t", 100, 2)
            await until(lambda: len(handler.handled) == 200)
            took = time.monotonic() - began

        assert took < 30

    asyncio.run(scenario())


def test_topics_are_made_once_and_never_changed(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """Missing topics are created and named; existing ones are left; another partition count is an error."""
    name = kafka_topics("existing", partitions=2)

    async def scenario() -> None:
        async with Admin(kafka.bootstrap, client_id="t") as admin:
            created = await admin.ensure_topics([TopicSpec(name, 2), TopicSpec(f"{name}-new", 3)])
            with pytest.raises(ValueError, match="2 partitions, not 5"):
                await admin.ensure_topics([TopicSpec(name, 5)])
            partitions = await admin.partitions(f"{name}-new")
            missing = await admin.partitions("no-such-topic")

        assert created == [f"{name}-new"]
        assert partitions == [TopicPartition(f"{name}-new", n) for n in range(3)]
        assert missing == []

    asyncio.run(scenario())


@pytest.mark.rule("K2")
def test_the_record_at_an_offset_and_since_a_moment(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """record_at finds the record, or the next one, or tells that there is none; records_since goes by broker time."""
    topic = kafka_topics("at", partitions=2, config=BROKER_TIME)
    tp = TopicPartition(topic, 0)

    async def scenario() -> None:
        clock = SystemClock()
        await send(kafka.bootstrap, topic, 10, 2)
        await asyncio.sleep(0.05)
        moment = clock.now()
        await asyncio.sleep(0.05)
        await send(kafka.bootstrap, topic, 4, 2)
        async with Admin(kafka.bootstrap, client_id="t") as admin:
            third, behind = await admin.record_at(tp, 3), await admin.record_at(tp, 7)
            since = await admin.records_since([topic], moment)
            everything = await admin.records_since([topic], moment - timedelta(hours=1))
            limited = await admin.records_since([topic], moment - timedelta(hours=1), limit=3)
            nothing = await admin.records_since([topic, "no-such-topic"], moment + timedelta(hours=1))

        assert third is not None
        assert (third.offset, third.value) == (3, b"6")
        assert behind is None
        assert sorted((record.partition, record.offset) for record in since) == [(0, 5), (0, 6), (1, 5), (1, 6)]
        assert (len(everything), len(limited), len(nothing)) == (14, 3, 0)

    asyncio.run(scenario())


@pytest.mark.rule("C5")
def test_what_was_deleted_is_not_waited_for(kafka: KafkaEngine, kafka_topics: MakeTopic) -> None:
    """Records from an offset on of which some or all were deleted since: those that are left, not a time-out for ever
    after a person has purged what a process had not read yet."""
    topic = kafka_topics("purged", partitions=1, config=BROKER_TIME)
    tp = TopicPartition(topic, 0)

    async def scenario() -> None:
        await send(kafka.bootstrap, topic, 5, 1)
        async with Admin(kafka.bootstrap, client_id="t", timeout_s=20) as admin:
            await admin.delete_before({tp: 3})
            some = await admin.records_behind({tp: 1})
            await admin.delete_before({tp: 5})
            none = await admin.records_behind({tp: 1})

        assert [record.offset for record in some] == [3, 4]
        assert none == []

    asyncio.run(scenario())


def test_no_broker_is_unavailable_within_the_limit() -> None:
    """Without a broker each call ends in Unavailable at its limit, and the next one tries anew."""

    async def scenario() -> None:
        async with Admin(f"127.0.0.1:{free_port()}", client_id="t", timeout_s=1) as admin:
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await admin.end_offsets([TopicPartition("t", 0)])
                assert time.monotonic() - began < 3

    asyncio.run(scenario())


@pytest.mark.rule("P7")
def test_a_frozen_broker_is_unavailable_and_the_next_call_recovers(kafka_fresh: KafkaEngine) -> None:
    """A broker that hangs is told as such within the limit; once it answers again so does Admin."""

    async def scenario() -> None:
        async with Admin(kafka_fresh.bootstrap, client_id="t", timeout_s=3) as admin:
            await admin.ensure_topics([TopicSpec("t", 1)])
            kafka_fresh.pause()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await admin.end_offsets([TopicPartition("t", 0)])
            took = time.monotonic() - began
            kafka_fresh.resume()
            end = await admin.end_offsets([TopicPartition("t", 0)])

        assert took < 6
        assert end == {TopicPartition("t", 0): 0}

    asyncio.run(scenario())
