"""The producer against a real broker that is killed, frozen and away."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as ClientPartition

from chassis.clock import SystemClock
from chassis.kafka.admin import Admin, TopicSpec
from chassis.kafka.producer import Producer, ProducerState
from chassis.kafka.record import Message
from linkmesh.local.engines import KafkaEngine
from linkmesh.local.ports import free_port
from tests.engines import MakeTopic

TOPIC = "ordered"


def make_producer(bootstrap: str) -> Producer:
    """A producer as processes make it."""
    return Producer(bootstrap, client_id="faults", clock=SystemClock())


async def make_topic(bootstrap: str) -> None:
    """One partition, so that the log shows the order."""
    async with Admin(bootstrap, client_id="faults", timeout_s=20) as admin:
        await admin.ensure_topics([TopicSpec(TOPIC, 1)])


async def read_log(bootstrap: str) -> list[int]:
    """All numbers in the topic, in the log's order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    tp = ClientPartition(TOPIC, 0)
    async with asyncio.timeout(30), consumer:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        found: list[int] = []
        while len(found) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [int(record.value) for record in records]
        return found


async def send_numbers(producer: Producer, count: int, sent: asyncio.Event) -> list[float]:
    """Send 0 … count-1 as the relay does: in batches, resuming behind what was acknowledged. Returns call times."""
    durations: list[float] = []
    following = 0
    async with asyncio.timeout(90):
        while following < count:
            numbers = range(following, min(count, following + 20))
            began = time.monotonic()
            following += await producer.send_in_order(
                [Message(TOPIC, b"k", str(number).encode()) for number in numbers], timeout_s=2
            )
            durations.append(time.monotonic() - began)
            if following >= 200:
                sent.set()
    return durations


@pytest.mark.rule("O1", "O2", "P1")
@pytest.mark.parametrize("fault", ["kill -9", "freeze"])
def test_acknowledged_is_in_the_log_and_first_occurrences_in_order(kafka_fresh: KafkaEngine, fault: str) -> None:
    """Through a kill -9 and restart, or a freeze, of the broker: nothing acknowledged is missing, repeats come late, no
    call outlives its limit by more than a second, and sending goes on by itself.
    """

    async def strike(sent: asyncio.Event) -> None:
        await sent.wait()
        if fault == "kill -9":
            kafka_fresh.kill()
            await kafka_fresh.start()
        else:
            kafka_fresh.pause()
            await asyncio.sleep(6)
            kafka_fresh.resume()

    async def scenario() -> None:
        await make_topic(kafka_fresh.bootstrap)
        sent = asyncio.Event()
        async with make_producer(kafka_fresh.bootstrap) as producer, asyncio.TaskGroup() as tasks:
            tasks.create_task(strike(sent))
            durations = await send_numbers(producer, 8_000, sent)
            assert producer.state is ProducerState.OPEN
        log = await read_log(kafka_fresh.bootstrap)

        assert list(dict.fromkeys(log)) == list(range(8_000)), "the order of first occurrences"
        assert max(durations) < 3.0
        assert max(durations) > 1.5, "the fault was not felt, so nothing was proven"

    asyncio.run(scenario())


@pytest.mark.rule("P7")
def test_broker_away_before_during_and_after(kafka_fresh: KafkaEngine) -> None:
    """With the broker frozen a producer can be used and left: sends return 0 at their limit, no task is left behind."""

    async def scenario() -> None:
        await make_topic(kafka_fresh.bootstrap)
        async with make_producer(kafka_fresh.bootstrap) as used:
            assert await used.send_in_order([Message(TOPIC, b"k", b"0")], timeout_s=10) == 1
            kafka_fresh.pause()
            began = time.monotonic()
            counts = [await used.send_in_order([Message(TOPIC, b"k", b"1")] * 300, timeout_s=0.5) for _ in range(3)]
            took = time.monotonic() - began
            began = time.monotonic()
        left = time.monotonic() - began
        async with asyncio.timeout(1):
            while len(asyncio.all_tasks()) > 1:  # the library's tasks must all end
                await asyncio.sleep(0.01)
        kafka_fresh.resume()

        assert counts == [0, 0, 0]
        assert took < 4
        assert left < 3

    asyncio.run(scenario())


@pytest.mark.rule("P8")
def test_what_is_in_flight_is_bounded(kafka_fresh: KafkaEngine) -> None:
    """However many callers there are while the broker is frozen, their messages in memory stay below the limit; who
    has no room gets 0 at its own limit; one message larger than the limit is sent alone; then all goes on.
    """

    async def scenario() -> None:
        await make_topic(kafka_fresh.bootstrap)
        seen: list[int] = []

        async def look(over: asyncio.Event) -> None:
            while not over.is_set():
                seen.append(producer.bytes_in_flight)
                await asyncio.sleep(0.01)

        async with Producer(
            kafka_fresh.bootstrap, client_id="bounded", clock=SystemClock(), bytes_in_flight_max=1000
        ) as producer:
            assert await producer.send_in_order([Message(TOPIC, b"k", b"x" * 5000)], timeout_s=10) == 1
            kafka_fresh.pause()
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(look(over))
                async with asyncio.TaskGroup() as calls:
                    message = [Message(TOPIC, b"k", b"x" * 400)]
                    counts = [
                        calls.create_task(producer.send_in_order(message, timeout_s=1)) for _ in range(20)
                    ]  # fmt: skip
                over.set()
            kafka_fresh.resume()
            assert [call.result() for call in counts] == [0] * 20
            assert producer.bytes_in_flight == 0
            assert await producer.send_in_order([Message(TOPIC, b"k", b"y")], timeout_s=10) == 1

        assert 0 < max(seen) <= 1000

    asyncio.run(scenario())


def test_no_broker_at_all() -> None:
    """Where nothing listens a send returns 0 at its limit, not before, so that callers need no pause of their own."""

    async def scenario() -> None:
        async with make_producer(f"127.0.0.1:{free_port()}") as producer:
            began = time.monotonic()
            count = await producer.send_in_order([Message(TOPIC, b"k", b"v")], timeout_s=0.7)
            took = time.monotonic() - began
            assert producer.state is ProducerState.AWAY
            assert not producer.ready

        assert count == 0
        assert 0.6 < took < 1.7

    asyncio.run(scenario())


def test_too_large_is_the_callers_error() -> None:
    """A message above the limit is refused before anything is sent, with or without a broker."""

    async def scenario() -> None:
        async with make_producer(f"127.0.0.1:{free_port()}") as producer:
            with pytest.raises(ValueError, match="larger"):
                await producer.send_in_order([Message(TOPIC, b"k", b"x" * 1_000_001)], timeout_s=1)

    asyncio.run(scenario())


@pytest.mark.rule("S3", "P5")
@pytest.mark.parametrize("count", [2, 40], ids=["one by one", "as parcels"])
def test_a_partition_that_is_not_there_ends_nothing(kafka: KafkaEngine, kafka_topics: MakeTopic, count: int) -> None:
    """A topic that was made again may have fewer than a spool remembers: what stands before it is acknowledged, what is
    for it is not, and the producer goes on."""
    topic = kafka_topics("fewer", partitions=1)
    there = [Message(topic, b"k", str(number).encode(), partition=0) for number in range(count)]
    nowhere = [Message(topic, b"k", b"lost", partition=7)] * count

    async def scenario() -> None:
        async with make_producer(kafka.bootstrap) as producer:
            assert await producer.send_in_order(there, timeout_s=30) == count
            assert await producer.send_in_order([*there, *nowhere], timeout_s=3) == count
            assert await producer.send_in_order(there, timeout_s=30) == count

    asyncio.run(scenario())
