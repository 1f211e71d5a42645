"""The dispatcher in virtual time, on fakes: schedules of days, hanging receivers, lost claims, a database away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.kafka_time import START as NOW
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.webhook import (
    FakeDeliveryStore,
    FakeEndpointStore,
    FakeSender,
    claims,
    make_delivery,
    make_endpoint,
)
from webhook.domain.deliveries import DELAYS_S, Answer, Delivery, DeliveryState
from webhook.domain.endpoints import Account, Endpoint, remove_endpoint
from webhook.domain.lanes import LaneLimits
from webhook.loops import Dispatcher, DispatchPolicy

ATTEMPT_S, LEASE_S = 15.0, 30.0
GOOD = make_endpoint("good", url="https://good.example/204")
HANGING = make_endpoint("hanging", url="https://hanging.example/hang")
BAD = make_endpoint("bad", url="https://bad.example/500")


@dataclass
class World:
    """Fakes, and as many dispatchers on them as a test starts."""

    endpoints: FakeEndpointStore = field(default_factory=lambda: FakeEndpointStore(GOOD, HANGING, BAD))
    deliveries: FakeDeliveryStore = field(default_factory=FakeDeliveryStore)
    sender: FakeSender = field(default_factory=FakeSender)
    new_claim: Callable[[], str] = field(default_factory=claims)

    def dispatcher(self, *, sweep_s: float = 1.0, lease_s: float = LEASE_S) -> Dispatcher:
        """A dispatcher with little jitter of chance."""
        return Dispatcher(
            self.endpoints,
            self.deliveries,
            self.sender,
            clock=VirtualClock(),
            policy=DispatchPolicy(
                lanes=LaneLimits(50, 5, 1000, 200),
                attempt_timeout_s=ATTEMPT_S,
                lease_s=lease_s,
                sweep_interval_s=sweep_s,
                drain_s=5.0,
            ),
            new_claim=self.new_claim,
            chance=lambda: 0.5,
        )

    async def hand_over(self, dispatcher: Dispatcher, event_id: str, endpoint: Endpoint = GOOD) -> Delivery:
        """Stores a claimed delivery and offers it, as the fan-out does."""
        delivery = make_delivery(
            event_id, endpoint, claim=self.new_claim(), next_at=VirtualClock().now() + timedelta(seconds=LEASE_S)
        )
        await self.deliveries.add([delivery])
        dispatcher.offer(delivery, endpoint)
        return delivery

    def row(self, event_id: str) -> Delivery:
        """The stored delivery of an event."""
        [row] = [row for row in self.deliveries.rows.values() if row.event_id == event_id]
        return row


@asynccontextmanager
async def running(*dispatchers: Dispatcher) -> AsyncIterator[asyncio.Event]:
    """Runs dispatchers until the block ends or sets the event."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for dispatcher in dispatchers:
            tasks.create_task(dispatcher.run(stop))
        await asyncio.sleep(0)
        yield stop
        stop.set()


@pytest.mark.rule("H1", "H2")
def test_a_first_attempt_is_made_from_memory_at_once() -> None:
    """Within milliseconds, without a look into the index, signed, in the trace of its event."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher(sweep_s=3600)
        async with running(dispatcher):
            delivery = await world.hand_over(dispatcher, "e")
            await asyncio.sleep(0.1)

            [(at, _, headers, body)] = world.sender.to(GOOD.url)
            assert at < 0.01
            assert body == delivery.body
            assert headers["webhook-id"] == "e"
            assert headers["traceparent"].split("-")[1] == "ab" * 16
            assert world.row("e").state is DeliveryState.DELIVERED
            assert world.row("e").attempts == 1

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_a_receiver_that_always_fails_is_tried_ten_times_as_scheduled() -> None:
    """Each attempt comes its delay after the last, at most a sweep late; after the tenth the delivery has failed."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher(sweep_s=60)
        async with running(dispatcher):
            await world.hand_over(dispatcher, "e", BAD)
            await asyncio.sleep(5 * 86400)

            times = [at for at, *_ in world.sender.to(BAD.url)]
            assert len(times) == 10
            for before, after, delay_s in zip(times[:-1], times[1:], DELAYS_S[1:], strict=True):
                assert delay_s <= after - before <= delay_s + 61
            row = world.row("e")
            assert (row.state, row.attempts, row.last_status) == (DeliveryState.FAILED, 10, 500)

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_an_endpoint_that_hangs_holds_up_nobody_else() -> None:
    """With hundreds waiting for a hanging endpoint, in memory and in the index, another is told at once."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher()
        await world.deliveries.add([make_delivery(f"old-{number}", HANGING, next_at=NOW) for number in range(3000)])
        async with running(dispatcher):
            for number in range(200):
                await world.hand_over(dispatcher, f"hanging-{number}", HANGING)
            await asyncio.sleep(5)
            started = asyncio.get_running_loop().time()
            world.deliveries.rows.update({("good", "due"): make_delivery("due", GOOD, next_at=NOW)})  # type: ignore[dict-item]  # plain names
            for number in range(20):
                await world.hand_over(dispatcher, f"good-{number}")
            await asyncio.sleep(3)

            sent = {headers["webhook-id"]: at - started for at, _, headers, _ in world.sender.to(GOOD.url)}
            assert len(sent) == 21
            assert sent.pop("due") < 2.1
            assert max(sent.values()) < 0.1
            assert len(world.sender.to(HANGING.url)) == 5

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_what_waited_in_memory_past_its_lease_is_left_to_the_index() -> None:
    """An attempt that could outlive its lease is not begun; the row comes up again when the lease is over."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher()
        async with running(dispatcher):
            for number in range(30):
                await world.hand_over(dispatcher, f"e{number}", HANGING)
            await asyncio.sleep(29)
            assert len(world.sender.to(HANGING.url)) == 10  # two rounds of five slots within the first 15 s of leases
            assert sum(row.attempts == 0 for row in world.deliveries.rows.values()) == 25 - 5 + 5

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_gone_disables_the_endpoint_and_ends_its_deliveries() -> None:
    """410: the endpoint is disabled with the reason, this delivery fails, and later ones are not even tried."""

    async def scenario() -> None:
        gone = make_endpoint("gone", url="https://gone.example/410")
        world = World(endpoints=FakeEndpointStore(gone))
        dispatcher = world.dispatcher()
        async with running(dispatcher):
            await world.hand_over(dispatcher, "first", gone)
            await asyncio.sleep(2)
            await world.deliveries.add([make_delivery("second", gone, next_at=NOW)])
            await asyncio.sleep(2)

        [endpoint] = (await world.endpoints.of_accounts([gone.user_id]))[gone.user_id].endpoints
        assert (endpoint.enabled, endpoint.disabled_reason) == (False, "It answered 410 Gone.")
        assert world.row("first").state is DeliveryState.FAILED
        assert (world.row("second").state, world.row("second").attempts) == (DeliveryState.FAILED, 0)
        assert len(world.sender.sent) == 1

    run_virtual(scenario())


@pytest.mark.rule("H2")
def test_a_deleted_endpoint_hears_nothing_more() -> None:
    """Deliveries that were waiting when the endpoint was deleted fail without an attempt."""

    async def scenario() -> None:
        world = World()
        dispatcher = world.dispatcher()
        async with running(dispatcher):
            await world.hand_over(dispatcher, "e", BAD)
            await asyncio.sleep(2)
            account = (await world.endpoints.of_accounts([BAD.user_id]))[BAD.user_id]
            without = remove_endpoint(account, BAD.endpoint_id)
            assert isinstance(without, Account)
            await world.endpoints.save(without)
            await asyncio.sleep(10)

        assert len(world.sender.sent) == 1
        assert (world.row("e").state, world.row("e").last_error) == (DeliveryState.FAILED, "The endpoint was deleted.")

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
