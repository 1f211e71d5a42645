"""Dead letters on a real broker: buried by a real runner, replayed to the group that failed, resumed, purged."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.consumers import Subscription, keyed_consumer
from chassis.kafka.dead_letter_counts import last_hour
from chassis.kafka.dead_letter_store import DeadLetterStore, Replayed, open_dead_letter_store
from chassis.kafka.letters import Contents, Fate, Selection, plan_purge
from chassis.kafka.producer import Producer, Sender
from chassis.kafka.record import Done, Message, Outcome, Record, Rejected
from linkmesh.local.engines import KafkaEngine
from tests.engines import MakeTopic, create_topic

LIMIT_S = 40.0
BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}


class Died(Exception):
    """Stands for the kill -9 of a call."""


@dataclass
class Dying:
    """A sender that dies before or behind a send: the `at`-th, counted from 1."""

    sender: Sender
    at: int
    behind: bool
    sends: int = 0

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """As the real one, until the end."""
        self.sends += 1
        if self.sends == self.at and not self.behind:
            raise Died
        acknowledged = await self.sender.send_in_order(messages, timeout_s=timeout_s)
        if self.sends == self.at:
            raise Died
        return acknowledged


class Impatient(SystemClock):
    """Does not sleep, and notes for how long it should have: what died here is dead at once."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        """Returns at once."""
        self.slept_s.append(delay_s)


@dataclass
class World:
    """A topic, its dead letters, and groups whose handlers reject `bad…` while `broken`."""

    bootstrap: str
    topic: str
    broken: bool = True
    handled: dict[str, list[Record]] = field(default_factory=dict)
    ready: dict[str, bool] = field(default_factory=dict)
    clock: SystemClock = field(default_factory=SystemClock)  # of the calls

    @asynccontextmanager
    async def member(self, group: str, *, sound: bool = False, per_hour_max: int = 50) -> AsyncIterator[None]:
        """A consumer of this group, running for the length of the block; a sound one never rejects."""
        handled = self.handled.setdefault(group, [])

        async def handle(records: Sequence[Record]) -> Sequence[Outcome]:
            handled.extend(records)
            bad = self.broken and not sound
            return [Rejected("conflict", "two") if bad and r.key.startswith(b"bad") else Done() for r in records]

        stop = asyncio.Event()
        async with (
            keyed_consumer(
                Subscription(self.bootstrap, group, [self.topic], f"member-of-{group}"),
                handler=handle,
                clock=SystemClock(),
                set_ready=lambda met, _why: self.ready.update({group: met}),
                dead_letters_per_hour_max=per_hour_max,
            ) as runner,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(runner.run(stop))
            try:
                yield
            finally:
                stop.set()

    @asynccontextmanager
    async def store(self, dying: tuple[int, bool] | None = None) -> AsyncIterator[DeadLetterStore]:
        """The dead letters; `dying`: at which send the call dies, and whether behind it."""
        async with (
            Admin(self.bootstrap, client_id="t") as admin,
            Producer(self.bootstrap, client_id="t", clock=SystemClock()) as producer,
        ):
            sender: Sender = Dying(producer, *dying) if dying else producer
            yield DeadLetterStore(admin=admin, sender=sender, topics=[self.topic], clock=self.clock)

    async def read(self) -> Contents:
        """What the dead letter topic says."""
        async with self.store() as store:
            return await store.read()

    async def replay(self, selection: Selection | None = None) -> Replayed:
        """Replay as one call does."""
        async with self.store() as store:
            return await store.replay(selection or Selection(), lambda _count: None)

    async def send(self, *keys: str) -> None:
        """Send a record per key."""
        async with Producer(self.bootstrap, client_id="t", clock=SystemClock()) as producer:
            batch = [Message(self.topic, k.encode(), f"value of {k}".encode(), (("ce_id", k.encode()),)) for k in keys]
            assert await producer.send_in_order(batch, timeout_s=LIMIT_S) == len(batch)

    async def replays(self) -> list[Record]:
        """All replays that stand in the topic."""
        async with Admin(self.bootstrap, client_id="t") as admin:
            records = await admin.records_since([self.topic], SystemClock().now().replace(year=2020))
        return [record for record in records if record.header("replay_for")]

    def keys(self, group: str) -> list[str]:
        """Which keys a group handled, in order."""
        return [record.key.decode() for record in self.handled[group]]


@pytest.fixture
def world(kafka: KafkaEngine, kafka_topics: MakeTopic) -> World:
    """A topic with two partitions and its dead letter topic, on the session's broker."""
    topic = kafka_topics("letters", partitions=2, config=BROKER_TIME)
    asyncio.run(create_topic(kafka.bootstrap, f"{topic}-dlq", 2, BROKER_TIME))
    return World(kafka.bootstrap, topic)


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0.02)


async def bury(world: World, *keys: str) -> None:
    """Have group `a` bury a record per key."""
    before = len((await world.read()).letters)
    await world.send(*keys)
    async with world.member("a"), asyncio.timeout(LIMIT_S):
        while len((await world.read()).letters) < before + len(keys):
            await asyncio.sleep(0.1)
    world.handled.clear()


@pytest.mark.rule("C5")
def test_a_replay_reaches_the_group_that_failed_and_no_other(world: World) -> None:
    """Three records that group `a` gave up on: replayed once it is mended, `a` handles each once more, as it was; `b`
    commits past them without its handler seeing them; a second replay finds nothing.
    """

    async def scenario() -> None:
        await world.send("bad1", "good", "bad2", "bad3")
        async with world.member("a"), world.member("b", sound=True):
            await until(lambda: len(world.handled["a"]) == len(world.handled["b"]) == 4)
        before = await world.read()
        world.broken = False
        replayed = await world.replay()
        again = await world.replay()
        world.handled.clear()
        async with world.member("a"), world.member("b", sound=True):
            await until(lambda: len(world.handled["a"]) == 3)
            await world.send("last")
            await until(lambda: "last" in world.keys("a") and "last" in world.keys("b"))

        assert sorted(letter.record.key for letter in before.letters) == [b"bad1", b"bad2", b"bad3"]
        assert {(x.group, x.reason, x.detail, x.fate) for x in before.letters} == {
            ("a", "conflict", "two", Fate.WAITING)
        }
        assert (replayed, again) == (Replayed(3, 0, 0), Replayed(0, 0, 0))
        assert sorted(world.keys("a")) == ["bad1", "bad2", "bad3", "last"]
        assert world.keys("b") == ["last"]
        record = next(record for record in world.handled["a"] if record.key == b"bad1")
        assert (record.value, record.header("ce_id")) == (b"value of bad1", "bad1")
        async with Admin(world.bootstrap, client_id="t") as admin:
            lag = await admin.lag("b", [world.topic], now=SystemClock().now())
        assert sum(found.records for found in lag.values()) == 0
        assert {letter.fate for letter in (await world.read()).letters} == {Fate.REPLAYED}

    asyncio.run(scenario())


def test_a_replay_that_fails_again_is_a_new_letter(world: World) -> None:
    """Still broken: the replay is buried once more, and that letter can be replayed in its turn, with one origin."""

    async def scenario() -> None:
        await bury(world, "bad1")
        await world.replay()
        async with world.member("a"), asyncio.timeout(LIMIT_S):
            while len((await world.read()).letters) < 2:
                await asyncio.sleep(0.1)
        second = await world.read()
        await world.replay()

        assert [letter.fate for letter in second.letters] == [Fate.REPLAYED, Fate.WAITING]
        first_of, second_of = (replay.header("replay_of") for replay in await world.replays())
        assert first_of == second_of
        assert {replay.header("replay_for") for replay in await world.replays()} == {"a"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("at", "behind", "sent_before"),
    [(1, True, False), (2, False, False), (2, True, True), (3, False, True), (3, True, True)],
    ids=["claimed", "before sending", "sent", "before the note", "noted"],
)
def test_a_replay_that_is_killed_at_any_step_sends_each_letter_once(
    world: World, at: int, behind: bool, sent_before: bool
) -> None:
    """Whatever the first call had done when it died, after the second one each letter was sent exactly once."""

    async def scenario() -> None:
        world.clock = clock = Impatient()
        await bury(world, "bad1", "bad1", "bad1")
        with pytest.raises(Died):
            async with world.store((at, behind)) as store:
                await store.replay(Selection(), lambda _count: None)
        between = len(await world.replays())
        replayed = await world.replay()

        assert between == (3 if sent_before else 0)
        assert all(10 < slept_s <= 15 for slept_s in clock.slept_s), "counted from the claim of the dead call"
        assert len(clock.slept_s) == (0 if at == 3 and behind else 1)
        assert replayed.sent + replayed.found_sent == (0 if at == 3 and behind else 3)
        replays = await world.replays()
        assert len(replays) == len({replay.header("replay_letter") for replay in replays}) == 3
        assert {letter.fate for letter in (await world.read()).letters} == {Fate.REPLAYED}

    asyncio.run(scenario())


def test_two_calls_side_by_side_send_each_letter_once(world: World) -> None:
    """Each letter belongs to the call whose claim stands first; together they deal with all of them."""

    async def scenario() -> None:
        await bury(world, *[f"bad{n}" for n in range(12)])
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(world.replay()) for _ in range(2)]
        # A call may also have begun when the other one's claim stood: then it waited for it, and found it sent.
        results = [call.result() for call in calls]

        assert sum(result.sent for result in results) == 12
        assert len(await world.replays()) == 12

    asyncio.run(scenario())


@pytest.mark.rule("C5")
def test_resume_closes_the_breaker_of_a_running_process(world: World) -> None:
    """One letter more than the limit stops the group; after `resume` it goes on within its next look, also over a
    restart, and the letters before it count no more.
    """

    async def scenario() -> None:
        await world.send(*[f"bad{n}" for n in range(3)])
        async with world.member("a", per_hour_max=2):
            await until(lambda: world.ready.get("a") is False and len(world.handled["a"]) >= 3)
            world.broken = False
            await world.send("good")
            tripped = last_hour(await world.read(), "a", now_ms=time.time_ns() // 1_000_000)
            handled_while_tripped = "good" in world.keys("a")
            async with world.store() as store:
                await store.resume("a", [world.topic])
            began = time.monotonic()
            await until(lambda: "good" in world.keys("a") and world.ready["a"])
            took = time.monotonic() - began
        world.handled.clear()
        async with world.member("a", per_hour_max=2):
            await world.send("after")
            await until(lambda: "after" in world.keys("a"))

        assert (tripped, handled_while_tripped) == (3, False)
        assert took < 8
        assert last_hour(await world.read(), "a", now_ms=time.time_ns() // 1_000_000) == 0

    asyncio.run(scenario())


def test_purge_deletes_the_chosen_front_of_each_partition(world: World) -> None:
    """What is meant and stands in front is gone for ever; what stays behind a letter that stays is told and stays."""

    async def scenario() -> None:
        await bury(world, "bad1")
        await bury(world, "bad2")
        await bury(world, "bad1")
        purge = plan_purge(await world.read(), Selection(code="bad1"), now_ms=time.time_ns() // 1_000_000)
        async with world.store() as store:
            await store.purge(purge)
        left = await world.read()
        rest = plan_purge(left, Selection(), now_ms=time.time_ns() // 1_000_000)
        async with world.store() as store:
            await store.purge(rest)

        kept = {letter.id for letter in purge.kept}
        assert {letter.id for letter in left.letters if letter.record.key == b"bad1"} == kept
        assert [letter.fate for letter in left.letters if letter.record.key == b"bad2"] == [Fate.WAITING]
        assert (await world.read()).letters == []
        assert await world.replay() == Replayed(0, 0, 0)

    asyncio.run(scenario())


def test_a_broker_that_is_away_is_told() -> None:
    """No answer is Unavailable within seconds, not a hang."""

    async def scenario() -> None:
        async with open_dead_letter_store("127.0.0.1:1", ["t"], clock=SystemClock()) as store:
            with pytest.raises(Unavailable):
                await store.read()

    asyncio.run(scenario())
