"""The dispatcher in virtual time when things go wrong: lost claims, a database away, kills and stops at any moment."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.kafka_time import START as NOW
from tests.fakes.kafka_time import run_virtual
from tests.fakes.webhook import (
    FakeEndpointStore,
    make_delivery,
    make_endpoint,
)
from tests.unit.webhook.dispatching import GOOD, HANGING, LEASE_S, World, running
from webhook.domain.deliveries import Answer, DeliveryState


@pytest.mark.rule("P7", "H2")
def test_what_a_process_with_a_wrong_clock_put_off_is_made_soon() -> None:
    """Its clock was 25 h ahead when it claimed a delivery and when it put another off; then it was killed. Those that
    are rightly put off, or under way elsewhere, are left alone."""

    async def scenario() -> None:
        world = World()
        far = NOW + timedelta(hours=25)
        claimed, late = make_delivery("claimed", GOOD, next_at=far, claim="c"), make_delivery("late", GOOD, next_at=far)
        right = make_delivery("right", GOOD, next_at=NOW + timedelta(hours=2))
        working = make_delivery("working", GOOD, next_at=NOW + timedelta(seconds=LEASE_S + 5), claim="d")
        await world.deliveries.add([claimed, late, right, working])
        world.deliveries.away = 3
        async with running(world.dispatcher(), world.astray()):
            await asyncio.sleep(LEASE_S + 4)

            assert {headers["webhook-id"] for _, _, headers, _ in world.sender.sent} == {"claimed", "late"}
            assert world.row("claimed").state is DeliveryState.DELIVERED

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_a_zombies_failure_does_not_overwrite_a_success() -> None:
    """An attempt that outlives its lease is overtaken; when it fails at last, the row stays delivered."""

    async def scenario() -> None:
        world = World()
        zombie, other = world.dispatcher(sweep_s=3600), world.dispatcher()
        world.sender.answers[GOOD.url] = lambda before: Answer(500) if before == 0 else Answer(204)
        async with running(zombie, other):
            world.sender.delay_s[GOOD.url] = 60
            await world.hand_over(zombie, "e")
            await asyncio.sleep(1)
            world.sender.delay_s[GOOD.url] = 0.1
            await asyncio.sleep(40)
            assert world.row("e").state is DeliveryState.DELIVERED
            await asyncio.sleep(40)

        assert len(world.sender.sent) == 2
        assert (world.row("e").state, world.row("e").attempts) == (DeliveryState.DELIVERED, 1)

    run_virtual(scenario())


@pytest.mark.rule("H2", "P7")
@pytest.mark.parametrize("calls_away", [1, 3, 40])
def test_a_database_that_goes_away_costs_repeats_but_no_delivery(calls_away: int) -> None:
    """Outcomes are stored when it is back, or the delivery is made again when its lease is over."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher()
        async with running(dispatcher):
            await world.hand_over(dispatcher, "e")
            world.deliveries.away = calls_away
            await asyncio.sleep(400)
            assert world.deliveries.away == 0
            assert world.row("e").state is DeliveryState.DELIVERED
            assert (len(world.sender.sent) == 1) is (calls_away < 4)  # so often an outcome is tried to be stored

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_stopping_ends_what_is_under_way_and_gives_back_what_waits() -> None:
    """After stop nothing begins; attempts under way are settled; what waited in memory is due at once."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher()
        slow = make_endpoint("slow", url="https://slow.example/204")
        world.endpoints = dispatcher._endpoints = FakeEndpointStore(slow)
        world.sender.delay_s[slow.url] = 3
        async with running(dispatcher) as stop:
            rows = [await world.hand_over(dispatcher, f"e{number}", slow) for number in range(12)]
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.sleep(0)
            assert not dispatcher.has_room(slow.endpoint_id)
            assert not dispatcher.offer(make_delivery("late", slow), slow)

        assert len(world.sender.sent) == 5
        states = [world.row(row.event_id) for row in rows]
        assert [row.state for row in states[:5]] == [DeliveryState.DELIVERED] * 5
        assert all((row.state, row.claim) == (DeliveryState.PENDING, "") for row in states[5:])
        assert all(row.next_at is not None and row.next_at <= NOW + timedelta(seconds=4) for row in states[5:])

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_a_receiver_that_hangs_does_not_hold_up_the_end() -> None:
    """An attempt that does not end in time after stop is abandoned: its lease brings it up again."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher()
        loop = asyncio.get_running_loop()
        async with running(dispatcher) as stop:
            await world.hand_over(dispatcher, "e", HANGING)
            await asyncio.sleep(1)
            stop.set()
            stopped_at = loop.time()

        assert loop.time() - stopped_at <= 5
        row = world.row("e")
        assert (row.state, row.attempts, row.next_at) == (
            DeliveryState.PENDING,
            0,
            NOW + timedelta(seconds=LEASE_S),
        )

    run_virtual(scenario())


@pytest.mark.rule("H2", "P1")
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.01, 20), min_size=1, max_size=5),
    st.lists(st.sampled_from([204, 500, 503, 0]), min_size=1, max_size=8),
    st.integers(0, 6),
)
def test_whenever_it_is_killed_every_delivery_is_made_in_the_end(
    lives_s: list[float], statuses: list[int], calls_away: int
) -> None:
    """Killed again and again at any moment, with failing receivers and a failing database: the last life delivers all
    that receivers take, and a row is never both delivered and due."""

    async def scenario() -> None:
        world = World()
        world.sender.answers[GOOD.url] = lambda before: (
            Answer(statuses[before]) if before < len(statuses) else Answer(200)
        )
        for life, life_s in enumerate(lives_s):
            dispatcher = world.dispatcher()
            task = asyncio.ensure_future(dispatcher.run(asyncio.Event()))
            await asyncio.sleep(0)
            for number in range(3):
                await world.hand_over(dispatcher, f"{life}-{number}")
            world.deliveries.away = calls_away
            await asyncio.sleep(life_s)
            task.cancel()
            await asyncio.wait([task])
            world.deliveries.away = 0
        async with running(world.dispatcher(sweep_s=900)), asyncio.timeout(4 * 86400):
            while any(row.state is DeliveryState.PENDING for row in world.deliveries.rows.values()):
                await asyncio.sleep(900)

        for row in world.deliveries.rows.values():
            assert (row.state, row.next_at, row.claim) == (DeliveryState.DELIVERED, None, "")
        received = {headers["webhook-id"] for _, _, headers, _ in world.sender.sent}
        assert received == {row.event_id for row in world.deliveries.rows.values()}

    run_virtual(scenario())
