"""Updates and restores as link_service carries them out: races, versions, repeats."""

import asyncio
from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from contracts.cache import Mutation
from contracts.link import LinkKey
from contracts.link_codec import timestamp
from link_service.ports import Leased, Verdict
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, act_as, play
from tests.unit.link_service.test_changing import waiting

KEY = LinkKey("abc-1")


@pytest.mark.rule("R1", "P3")
def test_an_update_shows_at_once_and_waits_in_the_outbox() -> None:
    """The new version is in Redis when the answer is given; its event is in the outbox; nothing asked the table."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        world.table.away = True

        link = await world.update(code, long_url="https://example.net", tags=["x"])

        assert (link.version, link.long_url, list(link.tags)) == (2, "https://example.net/", ["x"])
        assert (await world.resolve(code)).link == link
        assert waiting(world, code) == [("link.created", 1), ("link.updated", 2)]
        assert await world.update(code, tags=["x"]) == link
        assert await world.update(code) == link
        assert waiting(world, code) == [("link.created", 1), ("link.updated", 2)]

    play(scenario)


@pytest.mark.rule("R1")
def test_a_restored_link_redirects_again() -> None:
    """A tombstone becomes the next version, active, whoever reads it; a restore of an active link changes nothing."""

    async def scenario(world: LinkWorld) -> None:
        made = await world.create()
        code = made.short_code
        await world.delete(code)

        link = await world.restore(code)

        assert (link.state, link.version, link.HasField("deleted_at")) == (link_pb2.LINK_STATE_ACTIVE, 3, False)
        assert (await world.resolve(code)).link == link
        assert await world.restore(code) == link
        assert await world.restore(code, if_version=1) == link
        assert waiting(world, code) == [("link.created", 1), ("link.deleted", 2), ("link.restored", 3)]

    play(scenario)


def test_an_expired_link_lives_again_at_once_when_it_is_prolonged() -> None:
    """Expiry is read from the newest version, so a later one acts with the answer; so does a cleared one."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        now = world.clock.now()
        await world.update(code, expires_at=now + timedelta(seconds=60))
        await world.clock.sleep(61)
        assert (await world.get(code)).state == link_pb2.LINK_STATE_EXPIRED
        assert (await world.update(code, title="x")).state == link_pb2.LINK_STATE_EXPIRED

        prolonged = await world.update(code, expires_at=now + timedelta(seconds=120))

        assert prolonged.state == (await world.get(code)).state == link_pb2.LINK_STATE_ACTIVE
        await world.clock.sleep(60)
        assert (await world.get(code)).state == link_pb2.LINK_STATE_EXPIRED
        cleared = await world.update(code, mask="expires_at")
        assert (cleared.state, cleared.HasField("expires_at")) == (link_pb2.LINK_STATE_ACTIVE, False)

    play(scenario)


@pytest.mark.rule("P3")
def test_what_an_update_is_refused_for() -> None:
    """Nobody's or a stranger's: 404; a stale version: 412; deleted: 409; bad fields: 422. Nothing is written."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        for refused in (world.update("none-1", title="x"), world.update(code, user_id="eve", title="x")):
            with pytest.raises(NotFound):
                await refused
        for stale in (world.update(code, if_version=7, title="x"), world.update(code, if_version=7)):
            with pytest.raises(Aborted):
                await stale
        for bad, field in (
            (world.update(code, mask="version"), "update_mask"),
            (world.update(code, mask="tags.x"), "update_mask"),
            (world.update(code, mask="long_url"), "long_url"),
            (world.update(code, title="t" * 201), "title"),
            (world.update(code, if_version=-1, title="x"), "if_version"),
            (world.restore(code, if_version=-1), "if_version"),
        ):
            with pytest.raises(InvalidArgument) as caught:
                await bad
            assert [item.field for item in caught.value.fields] == [field]
        assert waiting(world, code) == [("link.created", 1)]

        await world.delete(code)
        with pytest.raises(FailedPrecondition) as gone:
            await world.update(code, title="x")
        assert gone.value.reason == "state_conflict"
        for user_id, if_version, kind in (("eve", 0, NotFound), ("ada", 1, Aborted)):
            with pytest.raises(kind):
                await world.restore(code, user_id=user_id, if_version=if_version)
        assert waiting(world, code) == [("link.created", 1), ("link.deleted", 2)]

    play(scenario)


@pytest.mark.rule("R2", "R5")
def test_a_link_that_is_only_in_the_table_is_changed_under_a_lease() -> None:
    """R5: absent in Redis, a consistent read under the lease is the base; a refusal gives the lease back."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY, version=4)
        with pytest.raises(NotFound):
            await world.update("none-1", title="x")
        assert isinstance(await world.cache.lease(LinkKey("none-1")), Leased)

        assert (await world.update(KEY, if_version=4, title="New")).version == 5

        assert waiting(world, KEY) == [("link.updated", 5)]

    play(scenario)


@pytest.mark.rule("R1")
def test_a_lost_race_is_decided_again_on_what_won() -> None:
    """R1: after CONFLICT the update is decided anew, under the same event: the other's fields stay, ours are set."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        plain_mutate = world.cache.mutate
        sent: list[Mutation] = []

        async def racing(mutation: Mutation) -> Verdict:
            sent.append(mutation)
            if len(sent) == 1:
                world.cache.mutate = plain_mutate  # type: ignore[method-assign]  # the other does not race with itself
                await world.update(KEY, title="Theirs")
                world.cache.mutate = racing  # type: ignore[method-assign]
            return await plain_mutate(mutation)

        world.cache.mutate = racing  # type: ignore[method-assign]  # the world between two steps of ours

        link = await world.update(KEY, tags=["ours"])

        assert (link.version, link.title, list(link.tags)) == (3, "Theirs", ["ours"])
        assert [mutation.base_version for mutation in sent] == [1, 2]
        assert len({mutation.event.event_id for mutation in sent}) == 1
        assert waiting(world, KEY) == [("link.created", 1), ("link.updated", 2), ("link.updated", 3)]

    play(scenario)


@pytest.mark.rule("R1", "P2")
def test_an_update_that_lost_against_a_delete_does_not_bring_the_link_back() -> None:
    """P2: the update is decided again on the tombstone, and refused."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        plain_mutate = world.cache.mutate

        async def racing(mutation: Mutation) -> Verdict:
            world.cache.mutate = plain_mutate  # type: ignore[method-assign]
            await world.delete(KEY)
            return await plain_mutate(mutation)

        world.cache.mutate = racing  # type: ignore[method-assign]  # the world between two steps of ours

        with pytest.raises(FailedPrecondition):
            await world.update(KEY, title="Late")

        assert (await world.resolve(KEY)).link.state == link_pb2.LINK_STATE_DELETED

    play(scenario)


@pytest.mark.rule("R1", "P3")
def test_of_many_updates_with_the_same_if_match_one_wins() -> None:
    """R1: a version is followed by exactly one; the others are told that theirs is stale."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)

        async def attempt(number: int) -> str:
            try:
                return (await world.update(KEY, if_version=1, title=f"{number}")).title
            except Aborted as exc:
                return exc.reason

        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(attempt(number)) for number in range(20)]

        told = [task.result() for task in answers]
        assert told.count("version_conflict") == 19
        assert (await world.get(KEY)).title in told
        assert waiting(world, KEY) == [("link.created", 1), ("link.updated", 2)]

    play(scenario)


@pytest.mark.rule("I1", "P6")
def test_a_repeated_update_is_applied_once() -> None:
    """I1: the same key gives the same version, also after the answer was lost and another change came between."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        world.redis.deaf = True
        with pytest.raises(Unavailable) as lost:
            await world.update(KEY, request_id="u-1", if_version=1, title="One")
        assert lost.value.reason == "outcome_unknown"
        world.redis.deaf = False
        await world.update(KEY, title="Two")

        again = await world.update(KEY, request_id="u-1", if_version=1, title="One")

        assert (again.version, again.title) == (2, "One")
        assert (await world.get(KEY)).title == "Two"
        with pytest.raises(InvalidArgument) as caught:
            await world.update(KEY, request_id="u-1", if_version=1, title="Other")
        assert caught.value.reason == "idempotency_key_reused"

    play(scenario)


@pytest.mark.rule("I1", "P6")
@pytest.mark.parametrize("late", [False, True], ids=["soon", "after a minute"])
def test_nothing_to_do_is_an_answer_too_and_is_repeated(late: bool) -> None:
    """I1: an update, delete or restore that found nothing to do stays so under its key, whatever happened since."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        await world.update(KEY, title="One")
        same = await world.update(KEY, request_id="u-1", title="One")
        active = await world.restore(KEY, request_id="r-1")
        deleted = await world.delete(KEY)
        assert await world.delete(KEY, request_id="d-1") == deleted
        await world.restore(KEY)
        last = await world.update(KEY, title="Two")
        await world.clock.sleep(60 if late else 0)

        assert await world.update(KEY, request_id="u-1", title="One") == same
        assert await world.delete(KEY, request_id="d-1") == deleted
        assert (await world.get(KEY)) == last
        await world.delete(KEY)
        assert await world.restore(KEY, request_id="r-1") == active
        assert (await world.resolve(KEY)).link.state == link_pb2.LINK_STATE_DELETED

    play(scenario)


@pytest.mark.rule("I2")
def test_a_repeated_update_does_not_meet_what_came_after_it() -> None:
    """I2: deleted, or past the end that it set, the event's own result is the answer, not a refusal."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        expiry = world.clock.now() + timedelta(seconds=5)
        first = await world.update(KEY, request_id="u-1", expires_at=expiry)
        await world.clock.sleep(10)
        await world.update(KEY, mask="expires_at")

        again = await world.update(KEY, request_id="u-1", expires_at=expiry)

        assert (again.version, again.expires_at) == (first.version, first.expires_at)
        await world.delete(KEY)
        assert (await world.update(KEY, request_id="u-1", expires_at=expiry)).version == first.version

    play(scenario)


@pytest.mark.rule("O3", "R6")
def test_without_room_a_change_says_so_and_leaves_no_lease() -> None:
    """R6: at 95 % of memory updates and restores answer 503 like deletes; nothing is half done."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        world.redis.memory_share = 0.96

        with pytest.raises(Unavailable, match="wait to be recorded"):
            await world.update(KEY, title="x")
        world.redis.memory_share = 0.9
        assert (await world.update(KEY, title="x")).version == 2

    play(scenario)


def test_only_the_gateway_may_say_for_whom() -> None:
    """A Bearer caller that states a principal is refused, in each of the new calls."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        act_as("eve")
        stated = key_pb.Principal(user_id="ada", scopes=["links:read", "links:write"])
        at = timestamp(world.clock.now())
        handlers = world.handlers

        for refused in (
            handlers.UpdateLink(pb.UpdateLinkRequest(principal=stated, short_code=KEY, update_mask=FieldMask()), None),
            handlers.RestoreLink(pb.RestoreLinkRequest(principal=stated, short_code=KEY), None),
            handlers.ListLinkEvents(pb.ListLinkEventsRequest(principal=stated, short_code=KEY), None),
            handlers.GetLinkAt(pb.GetLinkAtRequest(principal=stated, short_code=KEY, at=at), None),
        ):
            with pytest.raises(PermissionDenied):
                await refused

    play(scenario)
