"""Until when an event that an idempotency key stands for may be applied."""

from datetime import timedelta

import pytest

from tests.fakes.link_service_world import LinkWorld, play


@pytest.mark.rule("I1")
@pytest.mark.parametrize("lead_h", [-1, 0])
def test_the_limit_is_half_a_minute_by_redis_clock(lead_h: int) -> None:
    """I1: it is judged by Redis' clock, so it is told by it: by our own, an hour ahead, it would hold for an hour."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.lead_of_clock = timedelta(hours=lead_h)
        asked_at = world.redis.now()

        await world.create(request_id="r-1")

        (intent,) = world.intents.stored.values()
        assert asked_at <= intent.not_after - timedelta(seconds=30) <= world.redis.now()

    play(scenario)
