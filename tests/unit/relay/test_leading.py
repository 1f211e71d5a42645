"""Whose turn it is: a relay whose lease is another's does nothing more."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from tests.fakes.kafka import FakeSender
from tests.fakes.kafka_time import run_virtual
from tests.unit.relay.worlds import RelayWorld, relaying


@pytest.mark.rule("O1")
def test_a_leader_that_lost_its_lease_stops() -> None:
    """O1: a relay that is told that another leads sends no more until it leads again; nothing waits for it."""

    async def main() -> None:
        world = RelayWorld()
        sender = FakeSender(world.broker)

        async def scenario() -> None:
            await world.write("ada")
            await world.until(lambda: world.waiting() == 0)
            world.redis.leader = ("another", world.clock.monotonic() + 60)
            await world.clock.sleep(5)
            sends = sender.calls
            await world.write("ada")
            await world.clock.sleep(30)
            assert sender.calls == sends
            assert world.waiting() == 1

            await world.until(lambda: world.waiting() == 0)  # the other one has gone

        await relaying([world.relay(sender=sender)], scenario)
        assert world.arrived() == world.written

    run_virtual(main())


@pytest.mark.rule("O1", "P7")
def test_a_leader_that_cannot_renew_stops_with_its_lease() -> None:
    """O1: when Redis does not answer, a leader ends at the latest when its lease has run out, by its own clock."""

    async def main() -> None:
        world = RelayWorld()
        relay = world.relay()
        stop = asyncio.Event()
        lost: list[float] = []

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(stop))
            await world.until(lambda: world.redis.leader is not None)
            world.redis.away = True
            away_at = world.clock.monotonic()
            await world.until(lambda: REGISTRY.get_sample_value("relay_leading") == 0)
            lost.append(world.clock.monotonic() - away_at)
            stop.set()

        assert lost[0] <= 4

    run_virtual(main())
