"""The dispatcher in virtual time, on fakes: schedules of days, hanging receivers, endpoints that go away."""

import asyncio
from datetime import timedelta

import pytest

from tests.fakes.kafka_time import START as NOW
from tests.fakes.kafka_time import run_virtual
from tests.fakes.webhook import (
    FakeEndpointStore,
    make_delivery,
    make_endpoint,
)
from tests.unit.webhook.dispatching import BAD, GOOD, HANGING, World, running
from webhook.domain.deliveries import DELAYS_S, DeliveryState
from webhook.domain.endpoints import Account, remove_endpoint


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
            await world.deliveries.add([make_delivery("due", GOOD, next_at=NOW + timedelta(seconds=1))])
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
            tried = {headers["webhook-id"] for _, _, headers, _ in world.sender.sent}
            assert len(tried) == 5  # when they gave their slots up, too little of the others' leases was left
            await asyncio.sleep(270)
            tried = {headers["webhook-id"] for _, _, headers, _ in world.sender.sent}
            assert len(tried) == 30

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
