"""What writer's EventTopic promises, on the fake and on a real broker."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from chassis.clock import SystemClock
from chassis.kafka.admin import Admin
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message, Record
from linkmesh.local.engines import KafkaEngine
from tests.engines import MakeTopic
from tests.fakes.writer_event_topic import FakeEventTopic
from writer.adapters.event_topic_kafka import KafkaEventTopic
from writer.ports import EventTopic

Send = Callable[[int, int], Coroutine[None, None, None]]  # so many records to that partition


@dataclass(frozen=True)
class Subject:
    """A topic of three partitions, the last of which stays empty."""

    topic: EventTopic
    send: Send


Check = Callable[[Subject], Coroutine[None, None, None]]


@pytest.fixture(params=["fake", "kafka"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check on one kind of topic."""
    if request.param == "fake":
        return lambda check: asyncio.run(check(_fake()))
    kafka: KafkaEngine = request.getfixturevalue("kafka")
    make: MakeTopic = request.getfixturevalue("kafka_topics")
    name = make("replayed", partitions=3, config={"message.timestamp.type": "LogAppendTime"})
    return lambda check: asyncio.run(_on_kafka(kafka.bootstrap, name, check))


def _fake() -> Subject:
    topic = FakeEventTopic([[], [], []])

    async def send(count: int, partition: int) -> None:
        at_ms = int(datetime.now(UTC).timestamp() * 1000)
        records = topic.partitions[partition]
        for _ in range(count):
            offset = len(records)
            records.append(Record("links-events", partition, offset, at_ms, b"k", str(offset).encode()))

    return Subject(topic, send)


async def _on_kafka(bootstrap: str, name: str, check: Check) -> None:
    async with (
        Producer(bootstrap, client_id="test", clock=SystemClock()) as producer,
        Admin(bootstrap, client_id="test", timeout_s=20) as admin,
    ):
        sent = [0, 0, 0]

        async def send(count: int, partition: int) -> None:
            first, sent[partition] = sent[partition], sent[partition] + count
            messages = [Message(name, b"k", str(first + n).encode(), (), partition) for n in range(count)]
            assert await producer.send_in_order(messages, timeout_s=30) == count

        await check(Subject(KafkaEventTopic(admin, name), send))


def test_what_there_was_is_read_in_order_and_nothing_that_came_later(run: Callable[[Check], None]) -> None:
    """A span is read whole by any steps; records behind its end, and empty partitions, are left out."""

    async def check(subject: Subject) -> None:
        await subject.send(250, 0)
        await subject.send(3, 1)
        spans = await subject.topic.spans(since=None)
        await subject.send(50, 0)
        await subject.send(1, 2)

        assert [(span.partition.partition, span.begin, span.end) for span in spans] == [(0, 0, 250), (1, 0, 3)]
        values: list[bytes] = []
        while records := await subject.topic.read(spans[0], len(values), limit=100):
            assert len(records) <= 100
            values += [record.value for record in records]
        assert values == [str(number).encode() for number in range(250)]

    run(check)


def test_a_moment_begins_at_its_first_record(run: Callable[[Check], None]) -> None:
    """By the broker's clock; partitions with nothing since then are left out."""

    async def check(subject: Subject) -> None:
        await subject.send(5, 0)
        await subject.send(5, 1)
        await asyncio.sleep(0.05)  # so that the broker's clock tells them apart
        moment = datetime.now(UTC)
        await subject.send(2, 1)

        spans = await subject.topic.spans(since=moment)
        later = await subject.topic.spans(since=moment + timedelta(hours=1))

        assert [(span.partition.partition, span.begin, span.end) for span in spans] == [(1, 5, 7)]
        assert later == []

    run(check)
