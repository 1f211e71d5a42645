"""O1: one leader at a time, heads in order, and trimming exactly what is told."""

import asyncio
import time

import pytest

from contracts.link import bucket_of
from link_service.ports import Done, Position
from tests.contract.link_cache.worlds import Play, World, mutation_of, new_link, next_of, until


@pytest.mark.rule("O1")
def test_one_leader_until_its_lease_ends_or_is_given_back(play: Play) -> None:
    """O1: a second candidate follows while the first one renews, and leads when it gave back or stopped renewing."""

    async def scenario(world: World) -> None:
        assert await world.outbox.lead("a", lease_ms=60_000)
        assert not await world.outbox.lead("b", lease_ms=60_000)
        assert await world.outbox.lead("a", lease_ms=60_000)
        await world.outbox.resign("b")
        assert not await world.outbox.lead("b", lease_ms=60_000), "only the leader gives its lease back"

        await world.outbox.resign("a")

        assert await world.outbox.lead("b", lease_ms=30)
        await until(lambda: world.outbox.lead("a", lease_ms=60_000), timeout_s=3)

    play(scenario)


@pytest.mark.rule("O1")
def test_heads_come_in_order_again_and_again_until_they_are_trimmed(play: Play) -> None:
    """O1: reading takes nothing away; trimming takes all up to the position, in that bucket alone."""

    async def scenario(world: World) -> None:
        last = new_link("in-order")
        assert await world.cache.mutate(mutation_of(last, generated=True)) == Done(last)
        for _ in range(5):
            last = next_of(last)
            assert await world.cache.mutate(mutation_of(last)) == Done(last)
        other = next(link for link in (new_link() for _ in range(1000)) if bucket_of(link.key) != bucket_of(last.key))
        await world.cache.mutate(mutation_of(other, generated=True))

        entries = await world.outbox.read(wait_s=0.01)
        again = await world.outbox.read(wait_s=0.01)
        mine = [entry for entry in entries if entry.bucket == bucket_of(last.key)]
        await world.outbox.trim({mine[2].bucket: mine[2].position})

        assert entries == again
        assert len(mine) == 6
        assert [entry.position for entry in mine] == sorted(entry.position for entry in mine)
        left = await world.outbox.read(wait_s=0.01)
        assert [entry for entry in left if entry.bucket == mine[0].bucket] == mine[3:]
        assert len(left) == 4
        assert (await world.outbox.depth()).entries == 4
        assert (await world.outbox.depth()).size_bytes > 0
        await world.outbox.trim({mine[0].bucket: Position((mine[0].position[0] - 1, 0))})
        assert (await world.outbox.depth()).entries == 4, "a late trim of a former leader takes nothing newer away"

    play(scenario)


@pytest.mark.rule("O1")
def test_a_read_wakes_with_the_first_entry_and_ends_without_one(play: Play) -> None:
    """A read that waits returns with the entry, long before its time; without one it returns nothing in the end."""

    async def scenario(world: World) -> None:
        assert list(await world.outbox.read(wait_s=0.02)) == []
        link = new_link()
        started = time.monotonic()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(world.outbox.read(wait_s=0.9))
            await asyncio.sleep(0)
            await world.cache.mutate(mutation_of(link, generated=True))

        assert [entry.bucket for entry in reading.result()] == [bucket_of(link.key)]
        assert time.monotonic() - started < 0.8

    play(scenario)


@pytest.mark.rule("O1")
def test_age_is_that_of_the_oldest_entry(play: Play) -> None:
    """The age of the outbox grows with its oldest entry and is 0 when it is empty."""

    async def scenario(world: World) -> None:
        assert (await world.outbox.depth()).oldest_age_s == 0
        await world.cache.mutate(mutation_of(new_link(), generated=True))

        async def has_aged() -> bool:
            return (await world.outbox.depth()).oldest_age_s > 0.05

        await until(has_aged)
        (entry,) = await world.outbox.read(wait_s=0.01)
        await world.outbox.set_aside(entry)
        await world.outbox.trim({entry.bucket: entry.position})
        assert (await world.outbox.depth()).oldest_age_s == 0

    play(scenario)
