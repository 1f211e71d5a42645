"""R8: a Redis that comes back empty or older, in virtual time: what is refused, what is put back, who does it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chassis.errors import Unavailable
from chassis.health import Readiness
from contracts.link import Link, LinkState
from link_service.domain.cache_gate import CacheGate
from link_service.domain.recovery import Offsets
from link_service.loops.recovery import Recovery
from link_service.loops.settling import Settling
from link_service.ports import Restoring
from tests.contract.link_cache.worlds import mutation_of
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.link_cache import FakeLinkCache, FakeRedis
from tests.fakes.link_events import make_link
from tests.fakes.link_service_ports import FakeLinkTable
from tests.fakes.recovery import FakeRecentEvents, FakeRecovery

MINUTE_MS = 60_000


class NotingGate(CacheGate):
    """Remembers for which runs it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened_for: list[str] = []

    def open(self, run_id: str) -> None:
        self.opened_for.append(run_id)
        super().open(run_id)


@dataclass
class Instance:
    """One link_service, as far as this matters."""

    name: str
    redis: FakeRecovery
    log: FakeRecentEvents
    told_besides: int = 0
    gate: CacheGate = field(default_factory=CacheGate)
    readiness: Readiness = field(default_factory=Readiness)

    def __post_init__(self) -> None:
        self.cache = FakeLinkCache(self.redis.redis, gate=self.gate)
        self.recovery = Recovery(
            redis=self.redis,
            log=self.log,
            gate=self.gate,
            clock=VirtualClock(),
            candidate=self.name,
            set_ready=self.readiness.declare("restored"),
            on_run=self._tell_besides,
        )

    async def _tell_besides(self) -> None:
        self.redis.redis.answer()
        self.told_besides += 1


@dataclass
class RecoveryWorld:
    """A Redis, a log, a table, and instances of link_service."""

    redis: FakeRecovery = field(default_factory=lambda: FakeRecovery(FakeRedis(VirtualClock())))
    log: FakeRecentEvents = field(default_factory=FakeRecentEvents)
    table: FakeLinkTable = field(default_factory=FakeLinkTable)

    def instance(self, name: str = "a") -> Instance:
        """Another one; it runs in `running`."""
        return Instance(name, self.redis, self.log)

    def stored(self, link: Link) -> Link | None:
        """What Redis has of it."""
        return self.redis.redis.value(link.key)

    def event(self, link: Link, *, at_ms: int = 0) -> Link:
        """An event that arrived in the log."""
        self.log.add(link, at_ms)
        return link


@asynccontextmanager
async def running(*instances: Instance) -> AsyncIterator[None]:
    """Their loops, for the time of the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for instance in instances:
            tasks.create_task(instance.recovery.run(stop))
        try:
            yield
        finally:
            stop.set()


async def until(holds: Callable[[], bool], *, timeout_s: float = 60) -> None:
    """Waits in virtual time."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.05)


def play(scenario: Callable[[RecoveryWorld], Awaitable[None]]) -> None:
    """Runs a scenario in a new world."""

    async def main() -> None:
        await scenario(RecoveryWorld())

    run_virtual(main())


def is_open(instance: Instance) -> bool:
    """Whether its gate is open for the run that Redis is at."""
    return instance.gate.run_id == instance.redis.redis.run_id


async def refuses(instance: Instance) -> bool:
    """Whether a create is refused because Redis may have forgotten."""
    try:
        await instance.cache.mutate(mutation_of(make_link("probe"), generated=True))
    except Restoring:
        return True
    return False


@pytest.mark.rule("R8", "P1", "P2")
def test_an_empty_redis_gets_back_the_newest_versions_before_anything_is_changed() -> None:
    """R8, P1, P2: changes are refused until every link of the log is there again, ended ones as ended; not after it."""

    async def scenario(world: RecoveryWorld) -> None:
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            kept = world.event(make_link("kept", version=2))
            world.event(make_link("gone"))
            gone = world.event(make_link("gone", version=2, state=LinkState.DELETED))
            world.redis.come_back("run-2")
            assert await refuses(instance)

            await until(lambda: is_open(instance))

            assert world.stored(kept) == kept
            assert world.stored(gone) == gone
            assert not await refuses(instance)
            assert instance.told_besides >= 2

    play(scenario)


@pytest.mark.rule("R8", "P2")
def test_a_redis_that_is_emptied_while_it_runs_is_restored_as_after_a_restart() -> None:
    """R8: nobody restarted it, so its run is the same; what it held besides the links is told again, too."""

    async def scenario(world: RecoveryWorld) -> None:
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            kept, told_besides = world.event(make_link("kept")), instance.told_besides
            world.redis.come_back(world.redis.redis.run_id)
            assert await refuses(instance)

            await until(lambda: world.stored(kept) == kept)
            await until(lambda: instance.told_besides > told_besides)

            assert not await refuses(instance)

    play(scenario)


@pytest.mark.rule("R8")
def test_a_process_is_ready_once_redis_is_restored_and_stays_so() -> None:
    """R8: a first start without Kafka is not ready and says why; a later restart of Redis leaves reads to go on."""

    async def scenario(world: RecoveryWorld) -> None:
        world.log.away = True
        instance = world.instance()
        async with running(instance):
            await until(lambda: "broker" in instance.readiness.reasons.get("restored", ""))
            world.log.away = False
            await until(lambda: instance.readiness.ready)
            world.log.away = True
            world.redis.come_back("run-2")
            await until(lambda: instance.gate.run_id is None)
            await asyncio.sleep(10)
            assert instance.readiness.ready

    play(scenario)


@pytest.mark.rule("R8", "P7")
def test_while_kafka_is_away_nothing_is_changed_and_after_it_everything_is() -> None:
    """R8: a Redis that restarts while Kafka is away stops changes; they go on by themselves within seconds of its
    return."""

    async def scenario(world: RecoveryWorld) -> None:
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            lost = world.event(make_link("lost"))
            world.log.away = True
            world.redis.come_back("run-2")
            for _ in range(60):
                await asyncio.sleep(10)
                assert await refuses(instance)

            world.log.away = False
            await until(lambda: is_open(instance), timeout_s=5)

            assert world.stored(lost) == lost

    play(scenario)


@pytest.mark.rule("R8")
def test_a_redis_away_for_a_while_is_waited_for() -> None:
    """R8: without an answer nothing is known; the gate opens for what comes back, after it is restored."""

    async def scenario(world: RecoveryWorld) -> None:
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            lost = world.event(make_link("lost"))
            world.redis.redis.away = True
            await asyncio.sleep(30)
            with pytest.raises(Unavailable):
                await instance.cache.mutate(mutation_of(make_link("probe"), generated=True))
            world.redis.come_back("run-2")
            world.redis.redis.away = False
            await until(lambda: is_open(instance))
            assert world.stored(lost) == lost

    play(scenario)


@pytest.mark.rule("R8", "P2")
def test_a_much_older_redis_is_told_all_that_came_after_its_last_note() -> None:
    """R8, P2: the copy is two hours old and still has what was ended since, for ever. Ten minutes of events and the
    writer's position would leave it there for ever; its own note of the log's end does not."""

    async def scenario(world: RecoveryWorld) -> None:
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            first = world.event(make_link("old"))
            world.redis.redis.store(first, None)
            await asyncio.sleep(21)  # the end of the log was noted
            copy = world.redis.copy()
            ended = world.event(make_link("old", version=2, state=LinkState.DELETED), at_ms=10 * MINUTE_MS)
            world.event(make_link("young"), at_ms=120 * MINUTE_MS)
            world.log.the_writer_catches_up()
            await asyncio.sleep(7200)

            world.redis.come_back("run-2", copy)
            assert world.stored(first) == first
            await until(lambda: is_open(instance))

            assert world.stored(ended) == ended

    play(scenario)


@pytest.mark.rule("R8")
def test_a_redis_that_restarts_during_recovery_is_restored_from_the_start() -> None:
    """R8: what was put back into a run that is over says nothing of the next one."""

    async def scenario(world: RecoveryWorld) -> None:
        events = [world.event(make_link(f"link-{number}")) for number in range(8)]
        instance = world.instance()
        restarts = iter(["run-2", "run-3"])

        async def restore(links: Sequence[Link], run_id: str) -> int | None:
            stored = await FakeRecovery.restore(world.redis, links, run_id)
            if (following := next(restarts, None)) is not None:
                world.redis.come_back(following)
            return stored

        world.redis.restore = restore  # type: ignore[method-assign]  # a server that dies in the middle
        async with running(instance):
            await until(lambda: is_open(instance))

        assert world.redis.redis.run_id == "run-3"
        assert [world.stored(link) for link in events] == events

    play(scenario)


@pytest.mark.rule("R8")
def test_a_redis_that_restarts_at_the_very_end_is_not_taken_for_restored() -> None:
    """R8: everything was put back, and lost again before that was said: it is said of the run that it was put into."""

    async def scenario(world: RecoveryWorld) -> None:
        lost = world.event(make_link("lost"))
        gate = NotingGate()
        instance = Instance("a", world.redis, world.log, gate=gate)
        restarts = iter(["run-2"])

        async def complete(run_id: str, *, unsettled: Offsets) -> bool:
            if (following := next(restarts, None)) is not None:
                world.redis.come_back(following)
            return await FakeRecovery.complete(world.redis, run_id, unsettled=unsettled)

        world.redis.complete = complete  # type: ignore[method-assign]  # a server that dies at the end
        async with running(instance):
            await until(lambda: is_open(instance))

        assert gate.opened_for == ["run-2"]
        assert world.stored(lost) == lost

    play(scenario)


@pytest.mark.rule("R8")
def test_a_restorer_that_is_stopped_in_the_middle_says_nothing_of_redis() -> None:
    """R8: what was put back by half is not taken for the whole by its successor."""

    async def scenario(world: RecoveryWorld) -> None:
        events = [world.event(make_link(f"link-{number}")) for number in range(8)]
        instance, stop = world.instance(), asyncio.Event()

        async def restore(links: Sequence[Link], run_id: str) -> int | None:
            stop.set()
            return await FakeRecovery.restore(world.redis, links, run_id)

        world.redis.restore = restore  # type: ignore[method-assign]  # SIGTERM in the middle
        await instance.recovery.run(stop)
        del world.redis.restore
        assert not (await world.redis.standing()).restored
        assert instance.gate.run_id is None

        successor = world.instance("b")
        async with running(successor):
            await until(lambda: is_open(successor))
        assert [world.stored(link) for link in events] == events

    play(scenario)


@pytest.mark.rule("R8")
def test_several_instances_agree_and_one_of_them_reads_the_log() -> None:
    """R8: all gates open for the same run, none before it is restored; the others are spared the work."""

    async def scenario(world: RecoveryWorld) -> None:
        lost = world.event(make_link("lost"))
        instances = [world.instance(name) for name in "abc"]
        async with running(*instances):
            await until(lambda: any(is_open(instance) for instance in instances))
            assert world.stored(lost) == lost
            await until(lambda: all(is_open(instance) for instance in instances))
            assert world.log.opened == 1

            world.redis.come_back("run-2")
            await until(lambda: all(is_open(instance) for instance in instances))

            assert world.stored(lost) == lost
            assert world.log.opened == 2

    play(scenario)


@pytest.mark.rule("R8", "P7")
def test_a_restorer_that_dies_is_succeeded() -> None:
    """R8: its lease ends; another one begins anew."""

    async def scenario(world: RecoveryWorld) -> None:
        lost = world.event(make_link("lost"))
        await world.redis.lead("killed", lease_ms=5_000)
        instance = world.instance()
        async with running(instance):
            await asyncio.sleep(4)
            assert not is_open(instance)
            await until(lambda: is_open(instance), timeout_s=5)
        assert world.stored(lost) == lost

    play(scenario)


@pytest.mark.rule("R8", "P2")
def test_a_restorer_that_was_paused_puts_nothing_old_over_what_came_since() -> None:
    """R8, P2: it has read version 1; another finishes, the link is ended, written, and forgotten by Redis as it may be;
    then the first goes on. Redis refuses: it is restored."""

    async def scenario(world: RecoveryWorld) -> None:
        first = world.event(make_link("a"))
        paused, other = world.instance("paused"), world.instance("other")
        sleeping, awake = asyncio.Event(), asyncio.Event()

        async def restore(links: Sequence[Link], run_id: str) -> int | None:
            sleeping.set()
            await awake.wait()
            return await FakeRecovery.restore(world.redis, links, run_id)

        world.redis.restore = restore  # type: ignore[method-assign]  # a process that is stopped in the middle
        async with running(paused):
            await sleeping.wait()
            del world.redis.restore  # the other one's calls are as ever
            async with running(other):
                await until(lambda: is_open(other))
                assert world.stored(first) == first
                del world.redis.redis.values[first.key]  # ended, written to the tables, its entry's time over
                awake.set()
                await until(lambda: is_open(paused))
        assert world.stored(first) is None

    play(scenario)


@pytest.mark.rule("R8")
def test_a_second_look_and_a_second_process_do_nothing() -> None:
    """R8: a link_service that restarts while Kafka is away finds Redis restored, and works."""

    async def scenario(world: RecoveryWorld) -> None:
        world.event(make_link("a"))
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            await asyncio.sleep(60)
        calls = world.redis.calls
        world.log.away = True
        successor = world.instance("b")
        async with running(successor):
            await until(lambda: is_open(successor), timeout_s=2)
            await asyncio.sleep(60)

        assert world.log.opened == 1
        assert world.redis.calls == calls

    play(scenario)


@pytest.mark.rule("R8", "O1")
def test_what_arrives_while_the_log_is_read_is_put_back_too() -> None:
    """R8: the relay may still be sending what it had read from the Redis that is lost."""

    async def scenario(world: RecoveryWorld) -> None:
        world.event(make_link("a"))
        late = make_link("late")

        async def restore(links: Sequence[Link], run_id: str) -> int | None:
            if not world.redis.calls:
                world.event(late)
            return await FakeRecovery.restore(world.redis, links, run_id)

        world.redis.restore = restore  # type: ignore[method-assign]  # something happens meanwhile
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))

        assert world.stored(late) == late

    play(scenario)


@pytest.mark.rule("R8")
def test_a_note_of_the_log_goes_to_the_run_it_was_made_for() -> None:
    """R8: the end is asked for, Redis comes back older, then the note arrives: it would hide what this one has to be
    told."""

    async def scenario(world: RecoveryWorld) -> None:
        instance = world.instance()
        async with running(instance):
            await until(lambda: is_open(instance))
            first = world.event(make_link("old"))
            world.redis.redis.store(first, None)
            await asyncio.sleep(11)
            copy = world.redis.copy()
            ended = world.event(make_link("old", version=2, state=LinkState.DELETED), at_ms=10 * MINUTE_MS)
            world.event(make_link("young"), at_ms=120 * MINUTE_MS)
            world.log.the_writer_catches_up()
            ends = await world.log.ends()
            world.redis.come_back("run-2", copy)
            await world.redis.note("run-1", ends)
            await until(lambda: is_open(instance))
            assert world.stored(ended) == ended

    play(scenario)


@pytest.mark.rule("R8", "R4")
def test_what_was_put_back_gets_an_expiry_when_the_tables_hold_it() -> None:
    """R8, R4: what is written may be forgotten again; what is not, must stay; what the tables have newer is replaced;
    an interrupted pass is done again."""

    async def scenario(world: RecoveryWorld) -> None:
        written, waiting, newer = make_link("written"), make_link("waiting", version=2), make_link("newer")
        for link in (written, waiting, newer):
            world.event(link)
        world.table.meta[written.key] = written
        world.table.meta[waiting.key] = make_link("waiting")
        world.table.meta[newer.key] = ended = make_link("newer", version=3, state=LinkState.DELETED)
        instance, stop = world.instance(), asyncio.Event()
        settling = Settling(
            redis=world.redis, log=world.log, table=world.table, clock=VirtualClock(), candidate=instance.name
        )
        world.table.away = True
        async with running(instance), asyncio.TaskGroup() as tasks:
            await until(lambda: is_open(instance))
            tasks.create_task(settling.run(stop))
            await asyncio.sleep(60)
            assert all(world.redis.redis.values[link.key][1] is None for link in (written, waiting, newer))
            world.table.away = False
            await until(lambda: not world.redis.left)
            stop.set()

        assert world.redis.redis.values[written.key][1] is not None
        assert world.redis.redis.values[waiting.key] == (waiting, None)
        assert world.stored(newer) == ended

    play(scenario)


@pytest.mark.rule("R8")
def test_what_was_put_back_by_an_attempt_that_failed_at_the_end_gets_an_expiry() -> None:
    """R8: the attempt that ends it finds nothing left to put back; what the first one stored must not stay for ever."""

    async def scenario(world: RecoveryWorld) -> None:
        written = world.event(make_link("written"))
        world.table.meta[written.key] = written
        instance, stop = world.instance(), asyncio.Event()
        failures = iter([Unavailable("unavailable", "Redis does not answer.")])

        async def complete(run_id: str, *, unsettled: Offsets) -> bool:
            if (failure := next(failures, None)) is not None:
                raise failure
            return await FakeRecovery.complete(world.redis, run_id, unsettled=unsettled)

        world.redis.complete = complete  # type: ignore[method-assign]  # a server that hangs at the end
        settling = Settling(
            redis=world.redis, log=world.log, table=world.table, clock=VirtualClock(), candidate=instance.name
        )
        async with running(instance), asyncio.TaskGroup() as tasks:
            await until(lambda: is_open(instance))
            tasks.create_task(settling.run(stop))
            await until(lambda: world.redis.redis.values[written.key][1] is not None)
            stop.set()

    play(scenario)
