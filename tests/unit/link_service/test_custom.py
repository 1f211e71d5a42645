"""Creates under chosen codes: one winner, whoever dies where."""

import asyncio
from dataclasses import replace

import pytest

from chassis.errors import AlreadyExists, Unavailable
from contracts.cache import Mutation
from contracts.link import LinkKey, UserId
from contracts.link_rows import Reservation
from link_service.ports import Leased, Verdict
from shortener.link.v1 import link_pb2
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

CODE = "my-code"
KEY = LinkKey(CODE)


async def die_between_reservation_and_mutation(world: LinkWorld, *, user_id: str = "ada") -> None:
    """What a process leaves that is killed there: the reservation, and a lease that ends by itself."""
    lease = await world.cache.lease(KEY, lease_ms=30_000)
    assert isinstance(lease, Leased)
    reservation = Reservation(
        key=KEY,
        user_id=UserId(user_id),
        event_id=make_link(KEY).event_id,
        at=await world.cache.now(),
        redis_run_id=await world.server.run_id(),
    )
    assert await world.table.reserve(reservation, over=None)
    await world.clock.sleep(31)


@pytest.mark.rule("K2", "P3")
def test_of_two_who_want_a_code_at_once_one_wins() -> None:
    """K2: two concurrent creates of one code: one link, and one is told that it is taken."""

    async def scenario(world: LinkWorld) -> None:
        async def attempt(user_id: str) -> link_pb2.Link | AlreadyExists:
            try:
                return await world.create(CODE, user_id=user_id)
            except AlreadyExists as exc:
                return exc

        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(attempt(f"user-{number}")) for number in range(10)]

        winners = [link for task in answers if isinstance(link := task.result(), link_pb2.Link)]
        refusals = {error.reason for task in answers if isinstance(error := task.result(), AlreadyExists)}
        assert len(winners) == 1
        assert refusals == {"custom_code_taken"}
        stored = world.redis.value(KEY)
        assert stored is not None
        assert stored.user_id == winners[0].user_id

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_a_code_stays_taken_wherever_the_link_is() -> None:
    """K2: taken while it is in Redis, when it is only in the table, and after it was deleted; also for its owner."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(CODE)
        with pytest.raises(AlreadyExists):
            await world.create(CODE)
        await world.persist()
        world.evict()
        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")
        await world.delete(CODE)
        await world.persist()
        world.evict()

        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")

    play(scenario)


@pytest.mark.rule("K2", "P1")
def test_after_a_crash_between_reservation_and_mutation_the_owner_goes_on() -> None:
    """K2: the same owner takes over at once, while Redis has not restarted; Kafka is not asked."""

    async def scenario(world: LinkWorld) -> None:
        await die_between_reservation_and_mutation(world)
        world.log.away = True

        assert (await world.create(CODE)).user_id == "ada"

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_after_such_a_crash_a_stranger_waits_until_it_is_safe() -> None:
    """K2: 409 while the older create may still be on its way or Kafka cannot tell; then the code is free."""

    async def scenario(world: LinkWorld) -> None:
        await die_between_reservation_and_mutation(world)
        reserved_at = world.clock.now()
        world.log.away = True
        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")
        world.log.away = False
        world.log.oldest = reserved_at
        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")
        world.log.oldest = None
        world.server.oldest = lambda _: reserved_at
        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")
        world.server.oldest = lambda _: None

        assert (await world.create(CODE, user_id="eve")).user_id == "eve"

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_after_a_failover_the_owner_is_a_stranger_too() -> None:
    """K2: with another run id even the owner proves first that nothing is on its way: Redis may have lost the entry."""

    async def scenario(world: LinkWorld) -> None:
        await die_between_reservation_and_mutation(world)
        world.server.run = "run-2"
        world.table.events.add((KEY, 1))
        with pytest.raises(AlreadyExists):
            await world.create(CODE)
        world.table.events.clear()

        assert (await world.create(CODE)).user_id == "ada"

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_a_takeover_that_was_overtaken_is_void() -> None:
    """K2: the put is conditional on the reservation that was read; who lost it decides again, and finds it taken."""

    async def scenario(world: LinkWorld) -> None:
        await die_between_reservation_and_mutation(world)
        plain_reserve = world.table.reserve

        async def overtaken(wanted: Reservation, *, over: Reservation | None) -> bool:
            if over is not None and wanted.user_id == "eve":
                bobs = replace(wanted, user_id=UserId("bob"), event_id=make_link(KEY).event_id, redis_run_id="run-1")
                assert await plain_reserve(bobs, over=over)
                world.log.away = True  # so that eve cannot rule out bob's create
            return await plain_reserve(wanted, over=over)

        world.table.reserve = overtaken  # type: ignore[method-assign]  # the world between two steps of ours

        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")

        assert world.redis.value(KEY) is None

    play(scenario)


@pytest.mark.rule("K2")
def test_a_lost_lease_starts_again_and_the_reservation_is_found_as_ones_own() -> None:
    """K2: a lease that ends before `mutate` restarts the sequence; the code is still created once."""

    async def scenario(world: LinkWorld) -> None:
        plain_mutate = world.cache.mutate
        tries = 0

        async def late(mutation: Mutation) -> Verdict:
            nonlocal tries
            tries += 1
            if tries == 1:
                world.redis.leases.clear()  # it took too long
            return await plain_mutate(mutation)

        world.cache.mutate = late  # type: ignore[method-assign]  # the world between two steps of ours

        assert (await world.create(CODE)).version == 1
        assert tries == 2

    play(scenario)


@pytest.mark.rule("K2")
def test_a_caller_that_hangs_up_leaves_no_half_create() -> None:
    """K2: the flow goes on without its caller: the link is made, not only reserved."""

    async def scenario(world: LinkWorld) -> None:
        plain_reserve = world.table.reserve

        async def slow_reserve(wanted: Reservation, *, over: Reservation | None) -> bool:
            await asyncio.sleep(0.2)
            return await plain_reserve(wanted, over=over)

        world.table.reserve = slow_reserve  # type: ignore[method-assign]  # a network
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await world.create(CODE)
        await world.clock.sleep(1)

        assert world.redis.value(KEY) is not None

    play(scenario)


@pytest.mark.rule("K2", "P7")
def test_a_create_that_failed_blocks_nobody() -> None:
    """K2: when table or Redis fail on the way, the lease is given back: the next try is not kept waiting for 30 s."""

    async def scenario(world: LinkWorld) -> None:
        world.table.away = True
        with pytest.raises(Unavailable):
            await world.create(CODE)
        world.table.away = False
        world.redis.memory_share = 0.9
        with pytest.raises(Unavailable):
            await world.create(CODE)
        world.redis.memory_share = 0.1

        assert (await world.create(CODE)).version == 1
        assert world.clock.monotonic() < 1

    play(scenario)


@pytest.mark.rule("K2")
def test_a_lease_that_nobody_gives_back_is_told_as_what_it_is() -> None:
    """K2: while a dead process' lease lasts, a stranger's code is taken, and one's own is to be tried again."""

    async def scenario(world: LinkWorld) -> None:
        assert isinstance(await world.cache.lease(KEY, lease_ms=30_000), Leased)
        with pytest.raises(Unavailable):
            await world.create(CODE)
        world.table.meta[KEY] = make_link(KEY)

        with pytest.raises(AlreadyExists):
            await world.create(CODE, user_id="eve")

    play(scenario)


@pytest.mark.rule("I1", "I2", "K2")
def test_a_repeated_create_is_not_told_that_its_own_code_is_taken() -> None:
    """I2: with an idempotency key a repeat gets the link it made, in Redis or only remembered; a new request is 409."""

    async def scenario(world: LinkWorld) -> None:
        first = await world.create(CODE, request_id="r-1")
        assert await world.create(CODE, request_id="r-1") == first
        await world.delete(CODE)
        assert await world.create(CODE, request_id="r-1") == first
        await world.persist()
        world.evict()
        assert await world.create(CODE, request_id="r-1") == first

        with pytest.raises(AlreadyExists):
            await world.create(CODE, request_id="r-2")

    play(scenario)
