"""What an idempotency key changes: the same request, once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from chassis.errors import AlreadyExists, InvalidArgument, ServiceError, Unavailable
from contracts.cache import Mutation
from contracts.link import LinkState, UserId, link_key
from link_service.ports import Verdict
from shortener.link.v1 import link_pb2
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


Step = Callable[[LinkWorld], Awaitable[object]]


async def make_taken(world: LinkWorld) -> object:
    """Somebody else has the code."""
    return await world.create("mine-1", user_id="eve")


async def make_deleted(world: LinkWorld) -> object:
    """The account's own link, which is deleted."""
    await world.create("mine-1")
    return await world.delete("mine-1")


async def make_second_version(world: LinkWorld) -> object:
    """The account's own link, at version 2."""
    await world.create("mine-1")
    return await world.update("mine-1", title="Two")


@pytest.mark.rule("I3")
@pytest.mark.parametrize(
    ("before", "refused", "other"),
    [
        (make_taken, lambda w: w.create("mine-1", request_id="r"), lambda w: w.create("mine-2", request_id="r")),
        (
            make_second_version,
            lambda w: w.update("mine-1", if_version=1, request_id="r", title="x"),
            lambda w: w.update("mine-1", if_version=2, request_id="r", title="x"),
        ),
        (
            make_second_version,
            lambda w: w.update("mine-1", request_id="r", long_url="ftp://x.org"),
            lambda w: w.update("mine-1", request_id="r", long_url="https://example.org/y"),
        ),
        (
            make_deleted,
            lambda w: w.update("mine-1", request_id="r", title="x"),
            lambda w: w.restore("mine-1", request_id="r"),
        ),
        (
            make_deleted,
            lambda w: w.delete("nobodys", request_id="r"),
            lambda w: w.delete("mine-1", request_id="r"),
        ),
    ],
    ids=["taken", "stale", "not allowed", "deleted", "not found"],
)
def test_a_refusal_leaves_the_key_free_for_another_request(before: Step, refused: Step, other: Step) -> None:
    """I3: what was refused for certain made nothing, so the same key may stand for the request that is right."""

    async def scenario(world: LinkWorld) -> None:
        await before(world)
        with pytest.raises(ServiceError):
            await refused(world)

        done = await other(world)

        assert await other(world) == done

    play(scenario)


@pytest.mark.rule("I3", "P6")
def test_a_time_out_keeps_the_key() -> None:
    """I3: what was not answered may have happened, or may yet: another request under the key is refused for 24 h."""

    async def scenario(world: LinkWorld) -> None:
        await world.create("mine-1")
        world.redis.deaf = True
        with pytest.raises(Unavailable):
            await world.update("mine-1", request_id="r", title="One")
        world.redis.deaf = False

        with pytest.raises(InvalidArgument) as caught:
            await world.update("mine-1", request_id="r", title="Two")
        assert caught.value.reason == "idempotency_key_reused"
        assert (await world.update("mine-1", request_id="r", title="One")).title == "One"
        assert (await world.get("mine-1")).version == 2

    play(scenario)


@pytest.mark.rule("I3", "R6", "P6")
@pytest.mark.parametrize("change", ["generated", "chosen", "update"])
def test_a_full_redis_keeps_no_key_of_what_it_refuses(change: str) -> None:
    """I3, R6: it has said itself that it did nothing; and each refused request would leave a few hundred bytes for 24 h
    in a Redis that refuses for want of memory. The repeat is carried out once there is room."""

    async def scenario(world: LinkWorld) -> None:
        await world.create("mine-1")
        world.redis.memory_share = 0.96 if change == "update" else 0.9

        async def ask() -> link_pb2.Link:
            match change:
                case "generated":
                    return await world.create(request_id="r")
                case "chosen":
                    return await world.create("mine-2", request_id="r")
                case _:
                    return await world.update("mine-1", request_id="r", title="One")

        with pytest.raises(Unavailable):
            await ask()
        assert world.intents.stored == {}
        world.redis.memory_share = 0.0

        assert await ask() == await ask()

    play(scenario)


@pytest.mark.rule("I3", "P6")
def test_a_call_that_hangs_keeps_the_key_that_its_repeat_is_refused_under() -> None:
    """I3: a refusal of the repeat proves nothing while the first call may still be applied; no second link comes of
    it."""

    async def scenario(world: LinkWorld) -> None:
        plain_mutate, gate = world.cache.mutate, asyncio.Event()

        async def slow(mutation: Mutation) -> object:
            world.cache.mutate = plain_mutate  # type: ignore[method-assign]  # only the first call hangs
            await gate.wait()
            return await plain_mutate(mutation)

        async def repeat() -> None:
            await asyncio.sleep(1)
            lease = world.redis.leases.pop(link_key("mine-1"))
            assert lease
            world.redis.store(make_link("mine-1", user_id="eve"), None)  # taken, so the repeat is refused
            with pytest.raises(AlreadyExists):
                await world.create("mine-1", request_id="r")
            assert (UserId("ada"), "r") in world.intents.stored
            del world.redis.values[link_key("mine-1")]
            gate.set()

        world.cache.mutate = slow  # type: ignore[method-assign, assignment]  # a network that holds it up
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(world.create("mine-1", request_id="r"))
            tasks.create_task(repeat())

        assert await world.create("mine-1", request_id="r") == first.result()

    play(scenario)


@pytest.mark.rule("I1", "P6")
def test_a_create_is_repeated_after_the_end_of_its_link() -> None:
    """I1: the same request gets its first answer, also when its `expires_at` has come; a new one is refused."""

    async def scenario(world: LinkWorld) -> None:
        end = world.clock.now() + timedelta(seconds=40)
        first = await world.create(request_id="r-1", expires_at=end)
        await world.clock.sleep(60)

        assert await world.create(request_id="r-1", expires_at=end) == first
        with pytest.raises(InvalidArgument) as caught:
            await world.create(request_id="r-2", expires_at=end)
        assert caught.value.reason == "invalid_field"
        with pytest.raises(InvalidArgument) as caught:
            await world.create(request_id="r-1", expires_at=end - timedelta(seconds=1))
        assert caught.value.reason == "idempotency_key_reused"
        with pytest.raises(InvalidArgument):
            await world.create(expires_at=end)
        assert len(world.redis.values) == 1

    play(scenario)


@pytest.mark.rule("I1")
def test_a_repeat_after_the_end_waits_until_the_first_call_is_settled() -> None:
    """I1: a first call that may yet be applied is not told away as invalid; once it is late, it is."""

    async def scenario(world: LinkWorld) -> None:
        async def lost(mutation: Mutation) -> Verdict:
            raise Unavailable("outcome_unknown", "The call was lost on its way.")

        end = world.clock.now() + timedelta(seconds=10)
        world.cache.mutate = lost  # type: ignore[method-assign]  # a network that loses it
        with pytest.raises(Unavailable):
            await world.create(request_id="r-1", expires_at=end)
        await world.clock.sleep(11)
        with pytest.raises(Unavailable):
            await world.create(request_id="r-1", expires_at=end)
        await world.clock.sleep(30)
        with pytest.raises(InvalidArgument):
            await world.create(request_id="r-1", expires_at=end)

    play(scenario)
