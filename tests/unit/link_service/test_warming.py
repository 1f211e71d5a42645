"""What a read of the table leaves in Redis when nobody waits for it, or when it is done for the next visitor."""

import asyncio

import pytest

from chassis.errors import NotFound, Unavailable
from contracts.link import LinkKey
from link_service.handlers.reading import Warmth
from link_service.ports import Leased
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")


@pytest.mark.rule("R2", "R3")
def test_a_read_that_comes_too_late_for_its_caller_warms_the_cache() -> None:
    """The visitor's 300 ms are over before the database answers: what it says is filled in under the same lease, and
    the next visitor finds it in Redis."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        world.table.network = lambda: asyncio.sleep(1)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await world.resolve(KEY)
        assert world.redis.value(KEY) is None
        await asyncio.sleep(1)

        assert world.redis.value(KEY) == world.table.meta[KEY]

    play(scenario)


@pytest.mark.rule("R2", "R5")
def test_a_caller_that_gives_up_keeps_no_lease_for_nothing() -> None:
    """A read that fails, or finds nothing, after its caller has gone gives the lease back all the same."""

    async def scenario(world: LinkWorld) -> None:
        async def fail_late() -> None:
            await asyncio.sleep(0.5)
            raise Unavailable("unavailable", "The database does not answer.")

        for network in (fail_late, lambda: asyncio.sleep(0.5)):
            world.table.network = network
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await world.resolve(KEY)
            await asyncio.sleep(0.5)
            lease = await world.cache.lease(KEY)
            assert isinstance(lease, Leased)
            await world.cache.release(KEY, lease.token)

    play(scenario)


@pytest.mark.rule("C6", "R2")
def test_to_warm_a_link_is_to_fill_it_under_a_lease() -> None:
    """An absent link is read and filled in, a present one costs the table nothing, one that is nowhere stays so."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)

        assert await world.reader.warm(KEY) is Warmth.FILLED
        assert world.redis.value(KEY) == world.table.meta[KEY]
        assert await world.reader.warm(KEY) is Warmth.WARM
        assert len(world.table.batches) == 1
        assert await world.reader.warm(LinkKey("nowhere")) is Warmth.ABSENT
        with pytest.raises(NotFound):
            await world.resolve("nowhere")

    play(scenario)


@pytest.mark.rule("C6", "R2")
def test_warming_outlasts_the_lease_of_a_reader_that_died() -> None:
    """R2: a lease whose holder died ends after 3 s, and the link is filled in then; one that is held on (a code that
    is just being made) is left to its holder."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        await world.cache.lease(KEY)
        assert await world.reader.warm(KEY) is Warmth.FILLED

        await world.cache.lease(LinkKey("new"), lease_ms=30_000)
        assert await world.reader.warm(LinkKey("new")) is Warmth.HELD

    play(scenario)
