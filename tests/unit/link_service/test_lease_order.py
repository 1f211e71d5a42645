"""A lease first, then the read: what is read earlier may be older than somebody's acknowledged change."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from contracts.cache import Mutation
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError
from contracts.link_rows import Reservation
from link_service.ports import Verdict
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")
Found = Link | Reservation | UndecodableError | None


def change_and_forget(world: LinkWorld, version: int) -> None:
    """Another's change is acknowledged and persisted, and its entry has expired; a write ends every lease."""
    link = make_link(KEY, version=version)
    world.redis.store(link, None)
    world.table.meta[KEY] = link
    del world.redis.values[KEY]


def overtaken_in_the_first_read(world: LinkWorld) -> None:
    """While the first read of the table is on its way, version 2 comes and goes."""
    world.table.meta[KEY] = make_link(KEY)
    plain_read = world.table.read_many

    async def slow_read(keys: Sequence[LinkKey]) -> AsyncIterator[Mapping[LinkKey, Found]]:
        parts = [part async for part in plain_read(keys)]
        if world.table.reads == 1:
            change_and_forget(world, 2)
        for part in parts:
            yield part

    world.table.read_many = slow_read  # type: ignore[method-assign]  # the world goes on in the middle of a read


@pytest.mark.rule("R2", "R3", "P2")
def test_what_was_overtaken_while_it_was_read_is_not_filled_in() -> None:
    """R2: the write ended the lease that the read began under; a lease taken after the read would let it in."""

    async def scenario(world: LinkWorld) -> None:
        overtaken_in_the_first_read(world)

        await world.resolve(KEY)

        assert world.redis.value(KEY) is None
        assert (await world.resolve(KEY)).link.version == 2

    play(scenario)


@pytest.mark.rule("R1", "R2", "P1")
def test_a_base_that_was_overtaken_while_it_was_read_is_void() -> None:
    """R2: decided on version 1 under a lease that was taken after the read, the change would be a second version 2."""

    async def scenario(world: LinkWorld) -> None:
        overtaken_in_the_first_read(world)

        tombstone = await world.delete(KEY)

        assert tombstone.version == 3

    play(scenario)


@pytest.mark.rule("R1", "P1")
def test_after_lease_needed_the_base_is_read_again_and_not_kept() -> None:
    """R1: the entry that the change was decided on is gone because a newer one came and expired: its base is void."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.store(make_link(KEY), None)
        plain_mutate = world.cache.mutate
        sent: list[Mutation] = []

        async def racing(mutation: Mutation) -> Verdict:
            sent.append(mutation)
            if len(sent) == 1:
                change_and_forget(world, 2)
            return await plain_mutate(mutation)

        world.cache.mutate = racing  # type: ignore[method-assign]  # the world between two steps of ours

        tombstone = await world.delete(KEY)

        assert tombstone.version == 3
        assert [mutation.base_version for mutation in sent] == [1, 2]

    play(scenario)
