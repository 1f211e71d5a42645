"""The keyed runner on a real broker: dead letters, pauses, rebalances with work in flight, deaths."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.consumers import Subscription, keyed_consumer
from chassis.kafka.dlq import resume_message
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.producer import Producer
from chassis.kafka.record import Done, Message, Outcome, Record, Rejected, TopicPartition
from linkmesh.local.engines import KafkaEngine
from tests.engines import MakeTopic, create_topic

LIMIT_S = 40.0
BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}


async def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> float:
    """Wait until it is true; returns how long that took, and fails when it never is."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit_s, "it never came true"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


@dataclass
class World:
    """What all members of a group did together: who saw what, and whether any key was ever handled twice at a time."""

    bootstrap: str
    topic: str
    group: str
    seen: list[tuple[str, Record]] = field(default_factory=list)
    running: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    overlaps: int = 0
    takes_s: float = 0.0
    away: bool = False
    ready: dict[str, tuple[bool, str]] = field(default_factory=dict)

    @asynccontextmanager
    async def member(
        self, name: str, policy: KeyedPolicy | None = None, *, seat: str | None = None
    ) -> AsyncIterator[None]:
        """A consumer of this group, running for the length of the block."""

        async def handle(records: Sequence[Record]) -> Sequence[Outcome]:
            if self.away:
                raise Unavailable("unavailable", "the table is away")
            return [await self._one(name, record) for record in records]

        subscription = Subscription(self.bootstrap, self.group, [self.topic], name, seat)
        stop = asyncio.Event()
        async with (
            keyed_consumer(
                subscription,
                handler=handle,
                clock=SystemClock(),
                set_ready=lambda met, why: self.ready.update({name: (met, why)}),
                policy=policy,
            ) as runner,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(runner.run(stop))
            try:
                yield
            finally:
                stop.set()

    async def _one(self, name: str, record: Record) -> Outcome:
        self.seen.append((name, record))
        self.running[record.key] += 1
        self.overlaps += self.running[record.key] > 1
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.running[record.key] -= 1
        return Rejected("undecodable", "no such field") if record.value == b"garbage" else Done()

    async def send(self, *messages: tuple[str, bytes]) -> None:
        """Send (key, value) pairs in order."""
        async with Producer(self.bootstrap, client_id="world", clock=SystemClock()) as producer:
            batch = [Message(self.topic, key.encode(), value, (("ce_id", b"7"),)) for key, value in messages]
            assert await producer.send_in_order(batch, timeout_s=LIMIT_S) == len(batch)

    async def committed(self) -> int:
        """How many records the group has committed."""
        async with Admin(self.bootstrap, client_id="world") as admin:
            return sum((await admin.committed(self.group)).values())

    def values(self, key: bytes) -> list[int]:
        """Which numbers of a key were handled first when, repeats left out."""
        return list(dict.fromkeys(int(record.value) for _, record in self.seen if record.key == key))


@pytest.fixture
def world(kafka: KafkaEngine, kafka_topics: MakeTopic) -> World:
    """A topic with four partitions and its dead letter topic, on the session's broker."""
    topic = kafka_topics("keyed", partitions=4, config=BROKER_TIME)
    asyncio.run(create_topic(kafka.bootstrap, f"{topic}-dlq", 2, BROKER_TIME))
    return World(kafka.bootstrap, topic, f"group-of-{topic}")


@pytest.mark.rule("C1")
def test_undecodable_goes_to_the_dead_letters_and_the_offset_on(world: World) -> None:
    """The dead letter is the original record with its story; the record counts as finished, others are untouched."""

    async def scenario() -> None:
        await world.send(("a", b"1"), ("b", b"garbage"), ("c", b"2"))
        async with world.member("m"):
            await until(lambda: len(world.seen) == 3)
        async with Admin(world.bootstrap, client_id="t") as admin:
            letters = await admin.records_since([f"{world.topic}-dlq"], SystemClock().now().replace(year=2020))

        assert await world.committed() == 3
        (letter,) = letters
        assert (letter.key, letter.value, letter.headers[0]) == (b"b", b"garbage", ("ce_id", b"7"))
        assert letter.header("dlq_reason") == "undecodable"
        assert letter.header("dlq_topic") == world.topic

    asyncio.run(scenario())


@pytest.mark.rule("C1", "P7")
def test_dependency_away_pauses_then_everything_is_done(world: World) -> None:
    """While the dependency is away the member stays in its group, unready, and buries nothing; then it catches up."""

    async def scenario() -> None:
        world.away = True
        await world.send(*[(f"k{n}", str(n).encode()) for n in range(200)])
        async with world.member("m"):
            await until(lambda: world.ready.get("m") == (False, "a dependency is away"))
            await asyncio.sleep(4)  # longer than the session: it must have been polling and beating
            async with Admin(world.bootstrap, client_id="t") as admin:
                owners = set((await admin.group_members(world.group)).values())
                ends = await admin.end_offsets(await admin.partitions(f"{world.topic}-dlq"))
            world.away = False
            took = await until(lambda: len(world.seen) == 200)
            await until(lambda: world.ready["m"] == (True, ""))

        assert owners == {"m"}
        assert sum(ends.values()) == 0
        assert took < 10
        assert await world.committed() == 200

    asyncio.run(scenario())


@pytest.mark.rule("C3", "P1")
def test_rebalances_with_work_in_flight(world: World) -> None:
    """Members come and go under load: nothing is lost, each key stays in order, no key is handled twice at a time."""

    async def scenario() -> None:
        world.takes_s = 0.002
        keys = [f"k{n}" for n in range(40)]
        await world.send(*[(key, str(n).encode()) for n in range(50) for key in keys])
        policy = KeyedPolicy(batch_records_max=5)
        async with world.member("one", policy):
            await until(lambda: len(world.seen) > 100)
            async with world.member("two", policy):
                await until(lambda: any(name == "two" for name, _ in world.seen))
                await asyncio.sleep(0.5)
            await until(lambda: len({(r.partition, r.offset) for _, r in world.seen}) == 2000)

        assert {name for name, _ in world.seen} == {"one", "two"}
        assert world.overlaps == 0
        for key in keys:
            assert world.values(key.encode()) == list(range(50)), f"{key} out of order"
        assert await world.committed() == 2000
        repeated = len(world.seen) - 2000
        assert repeated < 200, "drained work is committed, not done again"

    asyncio.run(scenario())


@pytest.mark.rule("C3")
def test_work_that_outlives_the_drain_is_handled_by_the_next_owner(world: World) -> None:
    """A record in a slow handler when its partition moves is cut off, uncommitted, and handled by the new owner."""

    async def scenario() -> None:
        policy = KeyedPolicy(batch_records_max=1, drain_s=0.5)
        await world.send(*[(f"k{n}", str(n).encode()) for n in range(8)])
        world.takes_s = 600
        async with world.member("one", policy):
            await until(lambda: len(world.seen) >= 4)
            world.takes_s = 0
            async with world.member("two", policy):
                await until(lambda: len({name for name, _ in world.seen}) == 2)
                await asyncio.sleep(2)

        assert world.overlaps == 0
        assert await world.committed() == 8

    asyncio.run(scenario())


@pytest.mark.rule("C3")
def test_a_dead_member_is_replaced_and_a_restarted_one_keeps_its_seat(world: World) -> None:
    """A static member that is gone for good (no word of leaving is ever sent) loses its partitions after the session
    of 3 s, and in less than 5 s, from the moment that it was last alive, another one handles a record of them; one
    that is back before that finds its seat, and nobody else is disturbed.
    """

    async def scenario() -> None:
        n = 0

        async def sent() -> None:
            nonlocal n
            n += 1
            await world.send(*[(f"{n}-{m}", str(n).encode()) for m in range(20)])

        async def handled() -> set[str]:
            await until(lambda: len(world.seen) == 20 * n)
            return {who for who, _ in world.seen[-20:]}

        async with world.member("one", seat="seat-1"):
            async with world.member("two", seat="seat-2"):  # ready is who has partitions; who came later shared them
                await until(lambda: all(world.ready.get(name) == (True, "") for name in ("one", "two")))
                await sent()
                assert await handled() == {"one", "two"}
            async with world.member("two", seat="seat-2"):
                await until(lambda: world.ready.get("two") == (True, ""))
                await sent()
                assert await handled() == {"one", "two"}
                its_own = {record.partition for who, record in world.seen if who == "two"}
                last_alive = time.monotonic()
            await sent()
            first = f"{n}".encode()
            await until(lambda: any(r.value == first and r.partition in its_own for _, r in world.seen))
            took = time.monotonic() - last_alive
            assert await handled() == {"one"}

        assert took > 1.5, "its seat was kept for it"
        assert took < 5.0
        assert world.overlaps == 0

    asyncio.run(scenario())


@pytest.mark.rule("P1", "P7")
def test_broker_killed_under_load(kafka_fresh: KafkaEngine) -> None:
    """kill -9 and restart of the broker while records flow: the runner goes on by itself within 30 s, loses nothing."""

    async def scenario() -> None:
        await create_topic(kafka_fresh.bootstrap, "t", 4, BROKER_TIME)
        await create_topic(kafka_fresh.bootstrap, "t-dlq", 2, BROKER_TIME)
        world = World(kafka_fresh.bootstrap, "t", "g", takes_s=0.002)
        await world.send(*[(f"k{n % 30}", str(n).encode()) for n in range(3000)])
        async with world.member("m", KeyedPolicy(batch_records_max=5), seat="seat"):
            await until(lambda: len(world.seen) > 300)
            kafka_fresh.kill()
            await kafka_fresh.start()
            took = await until(lambda: len({(r.partition, r.offset) for _, r in world.seen}) == 3000)
            await world.send(("late", b"1"))
            await until(lambda: world.seen[-1][1].key == b"late")

        assert took < 30
        assert world.overlaps == 0
        assert await world.committed() == 3001

    asyncio.run(scenario())


@pytest.mark.rule("C5")
def test_the_breaker_counts_all_members_of_the_group(world: World) -> None:
    """Two members, each with a part of 60 hopeless records: together they stop at the limit of 50 and are both unready,
    though neither has buried so many; a restart changes nothing; a person lets both go on.
    """

    async def scenario() -> None:
        def stopped(name: str) -> bool:
            met, why = world.ready.get(name, (True, ""))
            return not met and f"linkmesh dlq resume {world.group}" in why

        policy = KeyedPolicy(lanes=1, batch_records_max=1, breaker_look_s=0.5)
        async with world.member("one", policy), world.member("two", policy):
            await until(lambda: {name for name, (met, _) in world.ready.items() if met} == {"one", "two"})
            await asyncio.sleep(1)  # the group settles
            await world.send(*[(f"k{n}", b"garbage") for n in range(60)])
            await until(lambda: stopped("one") and stopped("two"))
            buried_by = {name for name, _ in world.seen}
            handled = len({(r.partition, r.offset) for _, r in world.seen})
        async with world.member("three", policy):
            await until(lambda: stopped("three"))
            async with Producer(world.bootstrap, client_id="person", clock=SystemClock()) as person:
                assert await person.send_in_order([resume_message(world.topic, world.group)], timeout_s=LIMIT_S) == 1
            await until(lambda: len({(r.partition, r.offset) for _, r in world.seen}) == 60)
            await until(lambda: world.ready["three"] == (True, ""))

        assert buried_by == {"one", "two"}
        assert 51 <= handled <= 54

    asyncio.run(scenario())


@pytest.mark.rule("C3", "P7")
def test_a_consumer_whose_task_has_died_is_rebuilt(world: World) -> None:
    """The library's fetching task can end without a word, and polls then return nothing for ever: it is noticed."""

    async def scenario() -> None:
        async with world.member("m"):
            await world.send(("a", b"1"))
            await until(lambda: len(world.seen) == 1)
            for task in asyncio.all_tasks():
                if "_fetch_requests_routine" in repr(task):
                    task.cancel()
            await world.send(("b", b"2"))
            took = await until(lambda: len({r.key for _, r in world.seen}) == 2)
            await until(lambda: world.ready["m"] == (True, ""))

        assert took < 20

    asyncio.run(scenario())


@pytest.mark.rule("C3")
def test_a_topic_that_is_deleted_and_created_anew_is_read_from_its_beginning(world: World) -> None:
    """Operators do that in development: nothing of the new log may be dropped because the old one was longer."""

    async def scenario() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=world.bootstrap, client_id="t")
        async with world.member("m"):
            await world.send(*[(f"k{n}", b"1") for n in range(200)])
            await until(lambda: len(world.seen) == 200)
            async with asyncio.timeout(LIMIT_S):
                await admin.start()
                await admin.delete_topics([world.topic])
                while world.topic in await admin.list_topics():
                    await asyncio.sleep(0.1)
                await admin.close()
            await create_topic(world.bootstrap, world.topic, 4, BROKER_TIME)
            await world.send(*[(f"n{n}", b"1") for n in range(40)])
            await until(lambda: len({r.key for _, r in world.seen}) == 240)

        assert await world.committed() == 40

    asyncio.run(scenario())


def test_lag_is_seen_from_outside(world: World) -> None:
    """Admin tells lag in records and seconds of a group that has not begun, is half way, and is done."""

    async def scenario() -> None:
        await world.send(*[("k", str(n).encode()) for n in range(10)])
        clock = SystemClock()
        async with Admin(world.bootstrap, client_id="t") as admin:
            before = await admin.lag(world.group, [world.topic], now=clock.now())
            await asyncio.sleep(0.3)
            later = await admin.lag(world.group, [world.topic], now=clock.now())
            async with world.member("m"):
                await until(lambda: len(world.seen) == 10)
            after = await admin.lag(world.group, [world.topic], now=clock.now())

        (tp,) = [tp for tp, lag in before.items() if lag.records]
        assert isinstance(tp, TopicPartition)
        assert (before[tp].records, before[tp].committed) == (10, None)
        assert later[tp].seconds >= before[tp].seconds + 0.3
        assert (after[tp].records, after[tp].committed, after[tp].seconds) == (0, 10, 0.0)

    asyncio.run(scenario())
