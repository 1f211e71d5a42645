"""R2, R3 and R5: who may read the tables for Redis, and what may be filled in."""

import pytest

from contracts.cache import LeaseToken
from contracts.link import LinkState
from link_service.ports import Done, Held, Leased, LeaseNeeded, Present
from tests.contract.link_cache.worlds import Play, World, mutation_of, new_link, next_of, until


@pytest.mark.rule("R2")
def test_a_present_value_is_returned_instead_of_a_lease(play: Play) -> None:
    """R2: only an absent value can be leased; a tombstone is a value."""

    async def scenario(world: World) -> None:
        link = new_link()
        await world.cache.mutate(mutation_of(link, generated=True))
        assert await world.cache.lease(link.key) == Present(link)
        tombstone = next_of(link, state=LinkState.DELETED)
        await world.cache.mutate(mutation_of(tombstone))

        assert await world.cache.lease(link.key) == Present(tombstone)
        assert not await world.lease_is_held(link.key)

    play(scenario)


@pytest.mark.rule("R2")
def test_one_lease_at_a_time_with_another_token_each(play: Play) -> None:
    """R2: NX and PX: the second asker is told it is held, until its time is over; tokens are never the same."""

    async def scenario(world: World) -> None:
        link = new_link()
        first = await world.cache.lease(link.key, lease_ms=30)
        assert isinstance(first, Leased)
        taken: list[LeaseToken] = []

        async def taken_over() -> bool:
            lease = await world.cache.lease(link.key, lease_ms=60_000)
            taken.extend([lease.token] if isinstance(lease, Leased) else [])
            return bool(taken)

        await until(taken_over)
        assert taken[0] != first.token
        assert await world.cache.lease(link.key) == Held()
        assert await world.cache.mutate(mutation_of(link, token=first.token)) == LeaseNeeded()
        assert await world.cache.mutate(mutation_of(link, token=taken[0])) == Done(link)

    play(scenario)


@pytest.mark.rule("R2")
def test_a_lease_given_back_is_free_at_once_and_only_by_its_holder(play: Play) -> None:
    """Giving a lease back is as if it had expired: the next one gets it; another's token gives nothing back."""

    async def scenario(world: World) -> None:
        link = new_link()
        first = await world.cache.lease(link.key, lease_ms=60_000)
        assert isinstance(first, Leased)
        await world.cache.release(link.key, LeaseToken(b"another"))
        assert await world.cache.lease(link.key) == Held()

        await world.cache.release(link.key, first.token)

        assert isinstance(await world.cache.lease(link.key), Leased)

    play(scenario)


@pytest.mark.rule("R3")
def test_fill_stores_with_expiry_under_the_lease_and_ends_it(play: Play) -> None:
    """R3: what was read under the lease is stored, with an expiry (the tables have it), and the lease is over."""

    async def scenario(world: World) -> None:
        link = next_of(new_link())
        lease = await world.cache.lease(link.key)
        assert isinstance(lease, Leased)

        assert await world.cache.fill(lease.token, link) == link

        assert await world.cache.get(link.key) == link
        assert await world.ttl_s(link.key) is not None
        assert not await world.lease_is_held(link.key)

    play(scenario)


@pytest.mark.rule("R3", "P2")
def test_fill_without_the_lease_stores_nothing(play: Play) -> None:
    """R3: a reader that paused until its lease was another's brings no old version back."""

    async def scenario(world: World) -> None:
        link = new_link()
        old = await world.cache.lease(link.key, lease_ms=60_000)
        assert isinstance(old, Leased)
        await world.cache.release(link.key, old.token)  # as if it had run out during the pause
        current = await world.cache.lease(link.key, lease_ms=60_000)
        assert isinstance(current, Leased)

        assert await world.cache.fill(old.token, link) == link

        assert await world.cache.get(link.key) is None
        assert await world.lease_is_held(link.key), "nothing was written, so the current lease goes on"

    play(scenario)


@pytest.mark.rule("R3", "P2")
def test_fill_answers_with_what_is_stored_now(play: Play) -> None:
    """R3: when a mutation came first, the filler learns the newer truth and overwrites nothing."""

    async def scenario(world: World) -> None:
        old = new_link()
        lease = await world.cache.lease(old.key, lease_ms=60_000)
        assert isinstance(lease, Leased)
        tombstone = next_of(old, state=LinkState.DELETED)
        assert await world.cache.mutate(mutation_of(tombstone, token=lease.token)) == Done(tombstone)

        assert await world.cache.fill(lease.token, old) == tombstone

        assert await world.cache.get(old.key) == tombstone
        assert await world.ttl_s(old.key) is None

    play(scenario)


@pytest.mark.rule("R3", "R6")
def test_fills_stop_when_memory_is_short(play: Play) -> None:
    """R6: from 70 % on nothing is cached that the tables have; the answer is right all the same."""

    async def scenario(world: World) -> None:
        await world.fill_memory(0.75)
        link = new_link()
        lease = await world.cache.lease(link.key)
        assert isinstance(lease, Leased)

        assert await world.cache.fill(lease.token, link) == link

        assert await world.cache.get(link.key) is None
        assert not await world.lease_is_held(link.key)

    play(scenario)
