"""Flights to the table: who may board, how many leave together, and who is told what when one does not arrive."""

import asyncio
from collections.abc import Sequence

import pytest

from chassis.errors import Internal, Unavailable
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError
from link_service.handlers import table_reads
from link_service.ports import READS_MAX
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")


def keys_of(count: int) -> list[LinkKey]:
    """So many different keys."""
    return [LinkKey(f"abc-{number}") for number in range(count)]


async def read_all(world: LinkWorld, keys: Sequence[LinkKey]) -> list[Link | None]:
    """What callers get who ask in the same turn."""
    async with asyncio.TaskGroup() as tasks:
        callers = [tasks.create_task(world.reads.read(key)) for key in keys]
    return [caller.result() for caller in callers]


@pytest.mark.rule("R3")
def test_one_flight_for_all_who_ask_for_a_link_in_the_same_turn() -> None:
    """Two hundred callers of one code cost one read of one link."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)

        found = await read_all(world, [KEY] * 200)

        assert found == [world.table.meta[KEY]] * 200
        assert world.table.batches == [(KEY,)]

    play(scenario)


@pytest.mark.rule("R3")
def test_a_read_that_was_sent_takes_no_new_passengers() -> None:
    """R3: who comes while a read is on its way shares the *next* one; a thousand readers cost two reads."""

    async def scenario(world: LinkWorld) -> None:
        world.table.network = lambda: asyncio.sleep(0.02)
        async with asyncio.TaskGroup() as tasks:
            early = tasks.create_task(world.reads.read(KEY))
            await asyncio.sleep(0.01)
            world.table.meta = {KEY: make_link(KEY)}  # acknowledged before the others come
            late = [tasks.create_task(world.reads.read(KEY)) for _ in range(1000)]

        assert early.result() is None
        assert {task.result() for task in late} == {world.table.meta[KEY]}
        assert world.table.batches == [(KEY,), (KEY,)]

    play(scenario)


@pytest.mark.rule("R3")
def test_a_batch_that_was_sent_takes_no_new_passengers_either() -> None:
    """R3, "BatchGetItem included": while links are on their way together, a late caller of one of them has a flight of
    its own, which leaves when that one's answer is there, not before."""

    async def scenario(world: LinkWorld) -> None:
        landed = asyncio.Event()
        world.table.network = lambda: _wait(landed)
        async with asyncio.TaskGroup() as tasks:
            early = [tasks.create_task(world.reads.read(key)) for key in keys_of(3)]
            await asyncio.sleep(0.01)
            late = tasks.create_task(world.reads.read(KEY))
            other = tasks.create_task(world.reads.read(LinkKey("other")))
            await asyncio.sleep(0.01)
            assert world.table.batches == [tuple(keys_of(3)), ("other",)]
            landed.set()

        assert [task.result() for task in (*early, late, other)] == [None] * 5
        assert world.table.batches[2:] == [(KEY,)]

    play(scenario)


@pytest.mark.rule("R3")
def test_links_of_one_turn_are_read_together_a_hundred_at_most() -> None:
    """250 links asked for in one turn are three calls; every caller gets its own link."""

    async def scenario(world: LinkWorld) -> None:
        keys = keys_of(250)
        world.table.meta |= {key: make_link(key) for key in keys[::2]}

        found = await read_all(world, keys)

        assert found == [world.table.meta.get(key) for key in keys]
        assert [len(batch) for batch in world.table.batches] == [READS_MAX, READS_MAX, 50]

    play(scenario)


@pytest.mark.rule("R3")
def test_calls_at_a_time_are_bounded_and_the_next_ones_are_fuller() -> None:
    """Four calls at a time; who comes meanwhile boards, and many leave together when one has landed."""

    async def scenario(world: LinkWorld) -> None:
        landed = asyncio.Event()
        world.table.network = lambda: _wait(landed)
        async with asyncio.TaskGroup() as tasks:
            for key in keys_of(30):
                tasks.create_task(world.reads.read(key))
                await asyncio.sleep(0.001)
            assert [len(batch) for batch in world.table.batches] == [1, 1, 1, 1]
            landed.set()

        assert [len(batch) for batch in world.table.batches] == [1, 1, 1, 1, 26]

    play(scenario)


@pytest.mark.rule("R5")
def test_nobody_waits_for_a_neighbour_that_the_database_left_undone() -> None:
    """R5: each link's caller is answered with the part that holds it; the others' parts come later."""

    async def scenario(world: LinkWorld) -> None:
        world.table.part = 1
        first, second = keys_of(2)
        world.table.meta |= {key: make_link(key) for key in (first, second)}
        plain, throttled = world.table.read_many, asyncio.Event()

        async def parts(keys: Sequence[LinkKey]):  # type: ignore[no-untyped-def]  # as the port has it
            async for part in plain(keys):
                yield part
                await throttled.wait()

        world.table.read_many = parts  # type: ignore[method-assign]  # a database that throttles a partition
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(world.reads.read(second))
            async with asyncio.timeout(60):  # of virtual time
                assert await world.reads.read(first) == world.table.meta[first]
            assert not waiting.done()
            throttled.set()

        assert waiting.result() == world.table.meta[second]

    play(scenario)


@pytest.mark.rule("C1")
def test_a_row_that_cannot_be_read_harms_no_other() -> None:
    """One bad row in a batch is its own callers' error."""

    async def scenario(world: LinkWorld) -> None:
        good, bad = keys_of(2)
        world.table.meta |= {good: make_link(good), bad: UndecodableError("no such state")}  # type: ignore[dict-item]
        async with asyncio.TaskGroup() as tasks:
            fine = tasks.create_task(world.reads.read(good))
            with pytest.raises(UndecodableError, match="no such state"):
                await world.reads.read(bad)

        assert fine.result() == world.table.meta[good]

    play(scenario)


@pytest.mark.rule("P5")
def test_a_failure_is_told_to_each_caller_as_its_own() -> None:
    """A database that is away is everybody's failure, and no exception is raised by two callers: their tracebacks
    would grow into each other. The next flight begins anew."""

    async def scenario(world: LinkWorld) -> None:
        world.table.away = True
        failures: list[Unavailable] = []

        async def ask() -> None:
            with pytest.raises(Unavailable) as failure:
                await world.reads.read(KEY)
            failures.append(failure.value)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(ask())
        assert len({id(failure) for failure in failures}) == 5
        assert {failure.retry_after_s for failure in failures} == {1}

        world.table.away = False
        assert await world.reads.read(KEY) is None

    play(scenario)


@pytest.mark.rule("P5")
def test_a_bug_in_the_table_strands_nobody() -> None:
    """Whatever a call raises, its passengers are told and the next call can leave."""

    async def scenario(world: LinkWorld) -> None:
        plain, world.table.network = world.table.network, _explode
        with pytest.raises(Internal):
            await world.reads.read(KEY)

        world.table.network = plain
        assert await world.reads.read(KEY) is None

    play(scenario)


@pytest.mark.rule("P5")
def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More links than the table can be asked for are refused at once, and those that wait are not harmed."""
    monkeypatch.setattr(table_reads, "_BOARDING_MAX", 10)

    async def scenario(world: LinkWorld) -> None:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(world.reads.read(key)) for key in keys_of(10)]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                world.reads.board(LinkKey("one-more"))

        assert [task.result() for task in waiting] == [None] * 10

    play(scenario)


@pytest.mark.rule("R3")
def test_a_reader_that_gives_up_takes_nobody_with_it() -> None:
    """A shared read goes on when the one who began it hangs up."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        world.table.network = lambda: asyncio.sleep(0.5)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(world.reads.read(KEY))
            second = tasks.create_task(world.reads.read(KEY))
            await asyncio.sleep(0.1)
            first.cancel()

        assert second.result() == world.table.meta[KEY]
        assert len(world.table.batches) == 1

    play(scenario)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _explode() -> None:
    raise ZeroDivisionError
