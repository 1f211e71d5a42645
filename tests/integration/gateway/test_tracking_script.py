"""Hearing of changes, against a Redis that says exactly what the test wants, and when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from chassis.clock import SystemClock
from chassis.redis import open_redis
from chassis.redis_wire import Replies
from contracts.link import LinkKey
from gateway.adapters.redis_pipe import RedisPipe
from gateway.adapters.tracking_redis import RedisTracking
from tests.integration.gateway.tracked import until

_CHANNEL = b"__redis__:invalidate"


def bulk(*parts: bytes) -> bytes:
    """An array of strings."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def message(*keys: bytes) -> bytes:
    """What Redis says of changed keys."""
    return b"*3\r\n$7\r\nmessage\r\n$20\r\n%b\r\n" % _CHANNEL + bulk(*keys)


CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$20\r\n%b\r\n:1\r\n" % _CHANNEL


@dataclass(slots=True)
class ScriptedRedis:
    """Answers what is needed, and the subscription with `confirmation`, once `may_confirm` is set. `beats` are the keys
    of beats that were written, `listeners` the connections that subscribed."""

    tracking_answer: bytes = b"+OK\r\n"
    confirmation: bytes = CONFIRMED
    may_confirm: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[bytes] = field(default_factory=list)
    beats: list[bytes] = field(default_factory=list)
    listeners: list[asyncio.StreamWriter] = field(default_factory=list)
    mark: bytes = b"$-1\r\n"
    run: bytes = b"a"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        replies = Replies()  # commands look like replies
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                replies.feed(data)
                for command in replies.take():
                    assert isinstance(command, list)
                    writer.write(await self._answer(command, writer))
        writer.close()

    async def _answer(self, command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        name = b" ".join(command[:2] if command[0] == b"CLIENT" else command[:1])
        self.asked.append(name)
        match name:
            case b"CLIENT ID":
                return b":7\r\n"
            case b"CLIENT TRACKING":
                assert command[2:] == [b"ON", b"REDIRECT", b"7", b"BCAST", b"PREFIX", b"url:"]
                return self.tracking_answer
            case b"SUBSCRIBE":
                self.listeners.append(writer)
                await self.may_confirm.wait()
                return self.confirmation
            case b"INFO":
                text = b"run_id:%b\r\nmaster_replid:b\r\n" % self.run
                return b"$%d\r\n%b\r\n" % (len(text), text)
            case b"SET":
                self.beats.append(command[1])
                return b"+OK\r\n"
            case b"GET":
                return self.mark
        return b"+OK\r\n"


@dataclass(slots=True)
class Told:
    """A TrackedLinks that writes down what it is told."""

    events: list[object] = field(default_factory=list)
    marks: list[int | None] = field(default_factory=list)
    overdue: bool = False
    still: bool = False

    def turned(self) -> bool:
        """The loop turns."""
        still, self.still = self.still, False
        return still

    def subscribed(self, asked_at: float) -> None:
        """Confirmed."""
        self.events.append("subscribed")
        self.overdue = False

    def lost(self) -> None:
        """Gone."""
        self.events.append("lost")

    def heard(self, sent_at: float) -> None:
        """A beat."""
        self.events.append(sent_at)

    def is_overdue(self) -> bool:
        """As the test says."""
        return self.overdue

    def changed(self, key: LinkKey) -> None:
        """A link."""
        self.events.append(key)

    def flush(self) -> None:
        """All links."""
        self.events.append("flush")

    def learn_issued(self, mark: int | None) -> None:
        """The mark."""
        self.marks.append(mark)


@contextlib.asynccontextmanager
async def tracking(server: ScriptedRedis, reads: RedisPipe | None = None) -> AsyncIterator[tuple[Told, RedisTracking]]:
    """The adapter on a scripted Redis."""
    told, clock, stop = Told(), SystemClock(), asyncio.Event()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
    async with (
        listening,
        open_redis(url, timeout_s=1, protocol=2) as channel,
        asyncio.TaskGroup() as tasks,
        RedisPipe(channel, clock=clock, tasks=tasks, timeout_s=1) as beats,
    ):
        adapter = RedisTracking(channel, beats, told, name="me", turn_s=0.01, clock=clock, reads=reads)
        running = tasks.create_task(adapter.run(stop))
        try:
            yield told, adapter
        finally:
            stop.set()
            await running


def run(
    scenario: "Callable[[ScriptedRedis, Told, RedisTracking], object]",
    make: Callable[[], ScriptedRedis] = ScriptedRedis,
) -> None:
    """Runs a scenario."""

    async def main() -> None:
        server = make()
        async with tracking(server) as (told, adapter):
            result = scenario(server, told, adapter)
            assert asyncio.iscoroutine(result)
            await result

    asyncio.run(main())


@pytest.mark.rule("L2")
def test_nothing_is_kept_before_the_subscription_is_confirmed() -> None:
    """That tracking is on is not enough: until Redis has confirmed that it also tells us, changes go by unheard."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        await until(lambda: bool(server.listeners))
        for _turn in range(20):
            await asyncio.sleep(0)
        assert told.events == []
        server.may_confirm.set()
        await until(lambda: told.events == ["subscribed"])

    run(scenario)


@pytest.mark.rule("L2")
@pytest.mark.parametrize(
    "make",
    [lambda: ScriptedRedis(tracking_answer=b"-ERR unknown\r\n"), lambda: ScriptedRedis(confirmation=b"+OK\r\n")],
    ids=["tracking", "subscription"],
)
def test_a_redis_that_refuses_is_never_believed(make: Callable[[], ScriptedRedis]) -> None:
    """One that cannot track, or answers otherwise than it should, is asked again and again, and nothing is kept."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: server.asked.count(b"CLIENT TRACKING") >= 3)
        assert told.events == []

    run(scenario, make)


@pytest.mark.rule("L2")
def test_a_beat_vouches_for_what_was_said_before_and_beside_it() -> None:
    """Changes of the same message are told first; another one's beat, or one of before, vouches for nothing."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: bool(server.beats))
        (listener,) = server.listeners
        listener.write(message(server.beats[0], b"url:{03}:one", b"url:hb:other:1", b"url:hb:me:99"))
        listener.write(message(server.beats[0]) + message(b"url:{04}:host.example/two"))
        await until(lambda: len(told.events) >= 4)
        subscribed, one, beat, two = told.events
        assert (subscribed, one, two) == ("subscribed", "one", "host.example/two")
        assert isinstance(beat, float)
        told.still = True
        await until(lambda: len(server.beats) > 2)
        assert len(set(server.beats)) == len(server.beats), "each beat has a key of its own"

    run(scenario)


@pytest.mark.rule("L1", "L2")
def test_no_keys_mean_all_keys_and_nonsense_means_the_end() -> None:
    """FLUSHALL comes without keys. After what nobody expects the channel is made anew."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: told.events == ["subscribed"])
        server.listeners[-1].write(b"*3\r\n$7\r\nmessage\r\n$20\r\n%b\r\n*-1\r\n" % _CHANNEL)
        await until(lambda: told.events == ["subscribed", "flush"])
        for nonsense in (b"+WHAT\r\n", b"?!\r\n"):
            told.events.clear()
            server.listeners[-1].write(nonsense)
            await until(lambda: told.events == ["lost", "subscribed"])

    run(scenario)


@pytest.mark.rule("L2")
def test_beats_that_are_missed_end_the_channel_and_a_standstill_asks_for_one_at_once() -> None:
    """Overdue: another connection. A loop that stood still: no waiting for the next half second."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: bool(server.beats))
        for number in range(2, 12):
            told.still = True
            await until(lambda: len(server.beats) >= number)  # noqa: B023 (called at once)
        told.overdue = True
        await until(lambda: told.events == ["subscribed", "lost", "subscribed"])

    run(scenario)


@pytest.mark.rule("R8")
def test_another_run_of_redis_ends_the_channel() -> None:
    """Who tells of changes is not the one that is read: nothing of it holds."""

    async def scenario(server: ScriptedRedis, told: Told, adapter: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: told.events == ["subscribed"])
        adapter.saw_run("a:b")
        assert told.events == ["subscribed"]
        adapter.saw_run("a:c")
        assert told.events == ["subscribed", "flush", "lost"]
        await until(lambda: told.events[3:] == ["subscribed"])

    run(scenario)


@pytest.mark.rule("R8")
def test_a_redis_that_was_replaced_is_not_read_any_more() -> None:
    """It may still answer: who is told of changes by its successor must not keep what it says, which is over."""
    before = ScriptedRedis(run=b"replaced")

    async def main() -> None:
        listening = await asyncio.start_server(before.serve, "127.0.0.1", 0)
        url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
        async with (
            listening,
            open_redis(url, timeout_s=1, protocol=2) as client,
            asyncio.TaskGroup() as tasks,
            RedisPipe(client, clock=SystemClock(), tasks=tasks, timeout_s=5) as reads,
        ):
            await reads.reply("GET", "it")
            assert before.asked.count(b"INFO") == 1
            successor = ScriptedRedis()
            successor.may_confirm.set()
            async with tracking(successor, reads) as (told, _):
                await until(lambda: told.events == ["subscribed"])
                await reads.reply("GET", "it")
            assert before.asked.count(b"INFO") == 2  # it connected anew, and would be told where

    asyncio.run(main())


@pytest.mark.rule("L5")
def test_the_mark_is_read_every_second_beat() -> None:
    """A number is one; none, or what is no number, is unknown."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: told.marks == [None])
        for answer in (b"$2\r\n42\r\n", b"$1\r\nx\r\n", b"-ERR no\r\n"):
            server.mark = answer
            seen = len(told.marks)
            while len(told.marks) == seen:
                told.still = True
                await asyncio.sleep(0.01)
        assert told.marks[0] is None
        assert {*told.marks} == {None, 42}
        assert told.marks[-1] is None

    run(scenario)


@pytest.mark.rule("L2")
def test_a_key_that_is_no_text_is_nobodys_link() -> None:
    """Whoever wrote it: what was said beside it and behind it is heard, by the same connection."""

    async def scenario(server: ScriptedRedis, told: Told, _: RedisTracking) -> None:
        server.may_confirm.set()
        await until(lambda: told.events == ["subscribed"])
        server.listeners[-1].write(message(b"url:{01}:\xff\xfe", b"url:{01}:one") + message(b"url:{02}:two"))
        await until(lambda: "two" in told.events)
        assert [event for event in told.events if isinstance(event, str)] == ["subscribed", "one", "two"]

    run(scenario)
