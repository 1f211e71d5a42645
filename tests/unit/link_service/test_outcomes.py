"""What is looked for before a request with an idempotency key is refused."""

from datetime import datetime

import pytest

from contracts.link import LinkKey, UserId
from link_service.handlers.attempts import Attempts, Repeatable
from link_service.ports import Late
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")
REQUEST = Repeatable(user_id=UserId("ada"), idempotency_key="r-1", body_hash="h")


@pytest.mark.rule("I2")
def test_an_event_whose_time_is_over_is_told_as_such_and_not_as_refused() -> None:
    """I2: while its time lasts nothing else stands for the request; after it another event may have been applied."""

    async def scenario(world: LinkWorld) -> None:
        attempts = Attempts(world.cache, world.intents, world.clock)
        attempt = await attempts.open(REQUEST, KEY)

        during = await attempts.outcome(attempt)
        await world.clock.sleep(31)

        assert during is None
        assert await attempts.outcome(attempt) == Late()

    play(scenario)


@pytest.mark.rule("I2", "P6")
def test_an_event_that_is_applied_between_the_look_and_its_end_is_found() -> None:
    """I2: it was not there at the first look, and then its time was over: only a second look tells that it never was
    applied. Without it the request would be carried out once more, by another event."""

    async def scenario(world: LinkWorld) -> None:
        attempts = Attempts(world.cache, world.intents, world.clock)
        attempt = await attempts.open(REQUEST, KEY)
        link = make_link(KEY)
        plain_now = world.cache.now

        async def meanwhile() -> datetime:
            world.redis.results[attempt.event_id] = link
            await world.clock.sleep(31)
            return await plain_now()

        world.cache.now = meanwhile  # type: ignore[method-assign]  # the world between two steps of ours

        assert await attempts.outcome(attempt) == link

    play(scenario)


@pytest.mark.rule("I2", "P6")
def test_a_repeat_that_is_refused_at_the_door_finds_what_was_applied_meanwhile() -> None:
    """I2: who cannot be carried out any more is told what the earlier call came to, also when that was applied
    in the last moment of its time; "refused" would be a lie then."""

    async def scenario(world: LinkWorld) -> None:
        attempts = Attempts(world.cache, world.intents, world.clock)
        attempt = await attempts.open(REQUEST, KEY)
        link = make_link(KEY)
        plain_now = world.cache.now

        async def meanwhile() -> datetime:
            world.redis.results[attempt.event_id] = link
            await world.clock.sleep(31)
            return await plain_now()

        world.cache.now = meanwhile  # type: ignore[method-assign]  # the world between two steps of ours

        assert await attempts.answered(REQUEST) == link

    play(scenario)
