"""What a Sender and a Source promise, on the broker in memory and on the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.producer import Producer, Sender
from chassis.kafka.record import Message, Record, TopicPartition
from chassis.kafka.source import Source
from chassis.kafka.source_kafka import KafkaSource, Subscription
from linkmesh.local.engines import KafkaEngine
from tests.engines import MakeTopic
from tests.fakes.kafka import FakeBroker, FakeSender, FakeSource

LIMIT_S = 20.0


@dataclass
class Owner:
    """A listener that notes what it owns, and what happened in which order."""

    owned: set[TopicPartition] = field(default_factory=set)
    history: list[str] = field(default_factory=list)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.owned |= set(partitions)
        self.history.append(f"assigned {len(partitions)}")

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.owned -= set(partitions)
        self.history.append(f"revoked {len(partitions)}")


@dataclass(frozen=True)
class Subject:
    """A broker with one topic of two partitions, a sender on it, and sources of one group."""

    topic: str
    sender: Sender
    source: Callable[..., Source]

    @property
    def partitions(self) -> list[TopicPartition]:
        """The topic's partitions."""
        return [TopicPartition(self.topic, 0), TopicPartition(self.topic, 1)]

    async def send(self, count: int, partition: int = 0) -> None:
        """Send records with values 0, 1 … to one partition."""
        messages = [Message(self.topic, b"k", str(n).encode(), (("h", b"1"),), partition) for n in range(count)]
        assert await self.sender.send_in_order(messages, timeout_s=LIMIT_S) == count

    @asynccontextmanager
    async def opened(self, *, assign_all: bool = False) -> AsyncIterator[tuple[Source, Owner]]:
        """A source that owns both partitions."""
        source, owner = self.source(assign_all=assign_all), Owner()
        await source.open(owner)
        try:
            await until(lambda: owner.owned == set(self.partitions))
            yield source, owner
        finally:
            await source.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true, without reading anything: a member joins by itself."""
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0.01)


async def read(source: Source, count: int) -> list[Record]:
    """Poll until there are so many records."""
    found: list[Record] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            found += await source.poll(timeout_s=0.1, records_max=100)
    return found


Check = Callable[[Subject], Coroutine[None, None, None]]


@pytest.fixture(params=["fake", "kafka"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check against one kind of broker."""

    async def on(subject: AbstractAsyncContextManager[Subject], check: Check) -> None:
        async with subject as opened:
            await check(opened)

    if request.param == "fake":
        return lambda check: asyncio.run(on(_fake(), check))
    engine: KafkaEngine = request.getfixturevalue("kafka")
    make_topic: MakeTopic = request.getfixturevalue("kafka_topics")
    topic = make_topic("contract", partitions=2, config={"message.timestamp.type": "LogAppendTime"})
    return lambda check: asyncio.run(on(_real(engine.bootstrap, topic), check))


@asynccontextmanager
async def _fake() -> AsyncIterator[Subject]:
    broker = FakeBroker(SystemClock(), {"contract": 2})
    yield Subject(
        "contract",
        FakeSender(broker),
        lambda assign_all=False: FakeSource(broker, group="g", topics=["contract"], assign_all=assign_all),
    )


@asynccontextmanager
async def _real(bootstrap: str, topic: str) -> AsyncIterator[Subject]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(Producer(bootstrap, client_id="contract", clock=clock))
        subscription = Subscription(bootstrap, f"group-of-{topic}", [topic], "contract")
        yield Subject(
            topic, sender, lambda assign_all=False: KafkaSource(subscription, clock=clock, assign_all=assign_all)
        )


def test_records_arrive_as_sent_and_in_order(run: Callable[[Check], None]) -> None:
    """Key, value and headers arrive unchanged, in the order of sending per partition, with dense offsets from 0."""

    async def check(subject: Subject) -> None:
        await subject.send(5, partition=0)
        await subject.send(3, partition=1)
        async with subject.opened() as (source, _):
            records = await read(source, 8)

        for partition, count in ((0, 5), (1, 3)):
            mine = [record for record in records if record.partition == partition]
            assert [record.value for record in mine] == [str(n).encode() for n in range(count)]
            assert [record.offset for record in mine] == list(range(count))
            assert {(record.topic, record.key, record.headers) for record in mine} == {
                (subject.topic, b"k", (("h", b"1"),))
            }
            assert all(abs(record.timestamp_ms / 1000 - SystemClock().now().timestamp()) < 60 for record in mine)

    run(check)


def test_one_key_is_one_partition(run: Callable[[Check], None]) -> None:
    """Without a partition the key decides, the same way for each message, and different keys spread."""

    async def check(subject: Subject) -> None:
        keys = [f"key{n}".encode() for n in range(16)]
        messages = [Message(subject.topic, key, b"") for key in keys * 2]
        await subject.sender.send_in_order(messages, timeout_s=LIMIT_S)
        async with subject.opened() as (source, _):
            records = await read(source, 32)

        places = {(record.key, record.partition) for record in records}
        assert len(places) == 16
        assert {partition for _, partition in places} == {0, 1}

    run(check)


def test_many_at_once_are_as_ordered_as_one_by_one(run: Callable[[Check], None]) -> None:
    """A call of many, which is several batches of each partition, keeps their order; one of its keys goes where it
    goes when it is sent alone; headers arrive unchanged."""

    async def check(subject: Subject) -> None:
        keys = [f"key{n}".encode() for n in range(6)]
        for key in keys:
            assert await subject.sender.send_in_order([Message(subject.topic, key, b"alone")], timeout_s=LIMIT_S) == 1
        numbers = range(240)
        many = [
            Message(subject.topic, keys[n % 6], b"%d " % n + b"x" * 3_000, (("n", b"%d" % n), ("trace", b"t")))
            for n in numbers
        ]
        assert await subject.sender.send_in_order(many, timeout_s=LIMIT_S) == len(many)
        async with subject.opened() as (source, _):
            records = await read(source, len(keys) + len(many))

        alone = {record.key: record.partition for record in records if record.value == b"alone"}
        found = [record for record in records if record.value != b"alone"]
        assert {record.partition for record in found} == {0, 1}
        assert all(record.partition == alone[record.key] for record in found)
        for partition in (0, 1):
            mine = [record.value.split()[0] for record in found if record.partition == partition]
            assert mine == [b"%d" % n for n in numbers if alone[keys[n % 6]] == partition]
        assert {record.headers for record in found} == {(("n", b"%d" % n), ("trace", b"t")) for n in numbers}

    run(check)


def test_sending_nothing_is_fine(run: Callable[[Check], None]) -> None:
    """An empty batch is acknowledged as such."""

    async def check(subject: Subject) -> None:
        assert await subject.sender.send_in_order([], timeout_s=LIMIT_S) == 0

    run(check)


def test_a_poll_returns_no_more_than_asked_for(run: Callable[[Check], None]) -> None:
    """records_max bounds a poll over all partitions."""

    async def check(subject: Subject) -> None:
        await subject.send(10, partition=0)
        await subject.send(10, partition=1)
        async with subject.opened() as (source, _):
            found = 0
            async with asyncio.timeout(LIMIT_S):
                while found < 20:
                    records = await source.poll(timeout_s=0.1, records_max=3)
                    assert len(records) <= 3
                    found += len(records)

    run(check)


def test_committed_is_where_the_next_owner_begins(run: Callable[[Check], None]) -> None:
    """After a commit of offset n, another opening reads from n; partitions without a commit begin at the oldest."""

    async def check(subject: Subject) -> None:
        await subject.send(5, partition=0)
        await subject.send(2, partition=1)
        async with subject.opened() as (source, _):
            await read(source, 7)
            await source.commit({subject.partitions[0]: 3})
        async with subject.opened() as (source, _):
            records = await read(source, 4)

        assert sorted((record.partition, record.offset) for record in records) == [(0, 3), (0, 4), (1, 0), (1, 1)]

    run(check)


def test_paused_partitions_are_silent_until_resumed(run: Callable[[Check], None]) -> None:
    """A paused partition returns nothing while others do, and after resume nothing is missing or twice."""

    async def check(subject: Subject) -> None:
        async with subject.opened() as (source, _):
            source.pause([subject.partitions[0]])
            await subject.send(3, partition=0)
            await subject.send(3, partition=1)
            while_paused = await read(source, 3)
            while_paused += await source.poll(timeout_s=0.3, records_max=100)
            source.resume(subject.partitions)
            after = await read(source, 3)

        assert {record.partition for record in while_paused} == {1}
        assert [(record.partition, record.offset) for record in after] == [(0, 0), (0, 1), (0, 2)]

    run(check)


def test_seek_moves_on_and_back(run: Callable[[Check], None]) -> None:
    """Reading goes on at the offset sought, whatever was read or committed before."""

    async def check(subject: Subject) -> None:
        await subject.send(5, partition=0)
        async with subject.opened() as (source, _):
            await read(source, 5)
            source.seek(subject.partitions[0], 3)
            from_3 = await read(source, 2)
            await source.seek_to_beginning(subject.partitions[0])
            from_0 = await read(source, 5)

        assert [record.offset for record in from_3] == [3, 4]
        assert [record.offset for record in from_0] == [0, 1, 2, 3, 4]

    run(check)


def test_end_and_position_are_known(run: Callable[[Check], None]) -> None:
    """After reading, the position is behind the last record returned, and the end behind the last there is."""

    async def check(subject: Subject) -> None:
        await subject.send(5, partition=0)
        async with subject.opened() as (source, _):
            await read(source, 5)
            tp = subject.partitions[0]

            assert (source.position(tp), source.end_offset(tp)) == (5, 5)
            assert source.end_offset(TopicPartition("elsewhere", 0)) is None
            assert source.position(TopicPartition("elsewhere", 0)) is None

    run(check)


@pytest.mark.rule("B2")
def test_assign_all_takes_every_partition_and_commits(run: Callable[[Check], None]) -> None:
    """Without a group membership a source owns all partitions at once, and its commits are the group's."""

    async def check(subject: Subject) -> None:
        await subject.send(2, partition=0)
        await subject.send(2, partition=1)
        async with subject.opened(assign_all=True) as (source, owner):
            await read(source, 4)
            await source.commit(dict.fromkeys(subject.partitions, 1))
            history = list(owner.history)
        async with subject.opened() as (source, _):
            records = await read(source, 2)

        assert history == ["assigned 2"]
        assert sorted((record.partition, record.offset) for record in records) == [(0, 1), (1, 1)]

    run(check)


@pytest.mark.rule("C3")
def test_a_second_member_takes_its_share_after_the_first_gave_up(run: Callable[[Check], None]) -> None:
    """When a member joins, the first is revoked everything before anybody is assigned anything; both own a half."""

    async def check(subject: Subject) -> None:
        async with subject.opened() as (first, one), asyncio.TaskGroup() as tasks:
            second, other = subject.source(), Owner()
            both = asyncio.Event()

            async def poll_first() -> None:
                while not both.is_set():
                    await first.poll(timeout_s=0.05, records_max=10)

            tasks.create_task(poll_first())
            await second.open(other)
            try:
                await until(lambda: len(other.owned) == 1 and len(one.owned) == 1)
            finally:
                both.set()
                await second.close()

        assert one.history[:3] == ["assigned 2", "revoked 2", "assigned 1"]
        assert one.owned | other.owned == set(subject.partitions)

    run(check)


def test_a_closed_source_says_so(run: Callable[[Check], None]) -> None:
    """Polling and committing without being open is Unavailable or nothing, never a hang; closing twice is fine."""

    async def check(subject: Subject) -> None:
        source = subject.source()
        await source.close()
        with pytest.raises(Unavailable):
            await source.poll(timeout_s=0.1, records_max=1)
        source.pause(subject.partitions)
        source.resume(subject.partitions)
        source.seek(subject.partitions[0], 0)
        await source.commit({subject.partitions[0]: 1})

    run(check)
