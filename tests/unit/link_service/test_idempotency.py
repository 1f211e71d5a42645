"""What an idempotency key changes: the same request, once."""

from datetime import timedelta

import pytest

from chassis.errors import InvalidArgument, Unavailable
from contracts.cache import Mutation
from contracts.link import LinkState, link_key
from link_service.ports import Verdict
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play


@pytest.mark.rule("I1", "P6")
def test_the_same_idempotency_key_gives_the_same_link_once() -> None:
    """I1: a repeat runs the same event again and gets its result, also after the answer was lost."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.deaf = True
        with pytest.raises(Unavailable):
            await world.create(request_id="r-1")
        world.redis.deaf = False

        first, again = await world.create(request_id="r-1"), await world.create(request_id="r-1")
        other = await world.create(request_id="r-2")
        of_eve = await world.create(request_id="r-1", user_id="eve")

        assert first == again
        assert len({first.short_code, other.short_code, of_eve.short_code}) == 3
        assert len(world.redis.values) == 3

    play(scenario)


@pytest.mark.rule("I1")
def test_an_idempotency_key_belongs_to_one_request() -> None:
    """I1: another body under the same key is refused, and so is a key that is too long; nothing is made."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(request_id="r-1")
        with pytest.raises(InvalidArgument) as caught:
            await world.create(request_id="r-1", long_url="https://example.org/other")
        assert caught.value.reason == "idempotency_key_reused"
        with pytest.raises(InvalidArgument):
            await world.create(request_id="r" * 129)

        assert len(world.redis.values) == 1

    play(scenario)


@pytest.mark.rule("I1")
def test_a_repeat_that_comes_too_late_is_a_new_event() -> None:
    """I1: LATE proves that the older event was never applied; the intent is swapped, and the create happens once."""

    async def scenario(world: LinkWorld) -> None:
        plain_mutate = world.cache.mutate

        async def lost(mutation: Mutation) -> Verdict:
            raise Unavailable("outcome_unknown", "The call was lost on its way.")

        world.cache.mutate = lost  # type: ignore[method-assign]  # a network that loses it
        with pytest.raises(Unavailable):
            await world.create(request_id="r-1")
        world.cache.mutate = plain_mutate  # type: ignore[method-assign]
        await world.clock.sleep(31)

        first, again = await world.create(request_id="r-1"), await world.create(request_id="r-1")

        assert first == again
        assert len(world.redis.values) == 1

    play(scenario)


@pytest.mark.rule("I2", "P6")
def test_a_repeated_delete_does_not_meet_its_own_tombstone() -> None:
    """I2: before a refusal is answered the event's own result is looked for: here of a now stale If-Match."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        first = await world.delete(code, if_version=1, request_id="d-1")
        newer = make_link(code, version=3)  # it was restored meanwhile
        world.redis.store(newer, None)

        again = await world.delete(code, if_version=1, request_id="d-1")

        assert again == first
        stored = world.redis.value(link_key(code))
        assert stored is not None
        assert stored.state is LinkState.ACTIVE

    play(scenario)


@pytest.mark.rule("I1")
def test_clocks_of_processes_do_not_matter_to_not_after() -> None:
    """I1: the time limit is told and checked by Redis' clock; ours may be an hour behind."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.lead_of_clock = timedelta(hours=1)

        link = await world.create(request_id="r-1")

        assert (await world.create(request_id="r-1")) == link

    play(scenario)
