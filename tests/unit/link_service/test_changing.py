"""Creates under generated codes, and deletes."""

import asyncio

import pytest

from chassis.errors import Aborted, InvalidArgument, NotFound, Unavailable
from contracts.cache import Mutation
from contracts.codes import is_generated_shape
from contracts.link import LinkKey, bucket_of, link_key
from contracts.link_codec import decode_event
from contracts.outbox_entries import decode_outbox_entry
from link_service.ports import Leased, Verdict
from shortener.link.v1 import link_pb2
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import CODES, LinkWorld, play

KEY = LinkKey("abc-1")


def waiting(world: LinkWorld, code: str) -> list[tuple[str, int]]:
    """Types and versions of the events of a link that are in the outbox."""
    entries = [decode_outbox_entry(entry.data) for entry in world.redis.streams[bucket_of(link_key(code))]]
    events = [decode_event(entry.event_type, entry.value) for entry in entries if entry.key == code]
    return [(event.type.value, event.version) for event in events]


@pytest.mark.rule("K1", "R1", "P3")
def test_generated_codes_are_the_permuted_ids() -> None:
    """K1: each create takes the next id; its code is unique by construction, and needs neither lease nor table."""

    async def scenario(world: LinkWorld) -> None:
        world.table.away = True

        codes = [(await world.create()).short_code for _ in range(100)]

        assert [CODES.number_of(code) for code in codes] == list(range(100))
        assert all(is_generated_shape(code) for code in codes)
        assert waiting(world, codes[0]) == [("link.created", 1)]
        assert world.table.reads == 0

    play(scenario)


@pytest.mark.rule("K1")
def test_without_ids_or_redis_creates_say_so() -> None:
    """Creates answer 503 when there are no ids in hand, when Redis is away, and when it has no room [O3]."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.away = True
        with pytest.raises(Unavailable):
            await world.create()
        world.redis.away = False
        world.redis.memory_share = 0.9
        with pytest.raises(Unavailable, match="wait to be recorded"):
            await world.create()
        world.redis.memory_share = 0.1
        while world.stock.take() is not None:
            pass
        with pytest.raises(Unavailable, match="no codes"):
            await world.create()

        assert not world.redis.values

    play(scenario)


@pytest.mark.rule("R1", "P1")
def test_a_create_whose_answer_is_lost_is_told_as_such_and_never_sent_again() -> None:
    """R1: without an idempotency key an unknown outcome is the caller's to know; there is one call, and one link."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.deaf = True

        with pytest.raises(Unavailable) as caught:
            await world.create()

        assert caught.value.reason == "outcome_unknown"
        assert len(world.redis.values) == 1

    play(scenario)


@pytest.mark.rule("W3", "R1")
def test_a_delete_leaves_a_tombstone_and_an_event() -> None:
    """A delete is the next version: a tombstone in Redis, never an absence, and its event in the outbox."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code

        tombstone = await world.delete(code)

        assert (tombstone.state, tombstone.version) == (link_pb2.LINK_STATE_DELETED, 2)
        assert (await world.resolve(code)).link == tombstone
        assert waiting(world, code) == [("link.created", 1), ("link.deleted", 2)]

    play(scenario)


@pytest.mark.rule("R5", "R2")
def test_a_delete_of_a_link_that_is_only_in_the_table_is_decided_under_a_lease() -> None:
    """R5: absent in Redis, a consistent read under the lease is the base; the token lets the tombstone in."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY, version=4)

        tombstone = await world.delete(KEY, if_version=4)

        assert tombstone.version == 5
        assert world.redis.value(KEY) is not None

    play(scenario)


def test_what_a_delete_is_refused_for() -> None:
    """No such link or a stranger's: 404; a stale version: 412; a second delete: the same answer. Nothing is written."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        with pytest.raises(NotFound):
            await world.delete("no-such")
        with pytest.raises(NotFound):
            await world.delete(code, user_id="eve")
        with pytest.raises(Aborted) as caught:
            await world.delete(code, if_version=7)
        assert caught.value.reason == "version_conflict"
        with pytest.raises(InvalidArgument):
            await world.delete(code, if_version=-1)
        assert waiting(world, code) == [("link.created", 1)]

        first, second = await world.delete(code), await world.delete(code, if_version=1)

        assert first == second
        assert waiting(world, code) == [("link.created", 1), ("link.deleted", 2)]

    play(scenario)


@pytest.mark.rule("R2")
def test_a_refused_delete_gives_its_lease_back() -> None:
    """R2: a lease that ends in no change does not keep the next one waiting."""

    async def scenario(world: LinkWorld) -> None:
        with pytest.raises(NotFound):
            await world.delete("no-such")
        assert isinstance(await world.cache.lease(LinkKey("no-such")), Leased)
        world.table.meta[KEY] = make_link(KEY)
        with pytest.raises(NotFound):
            await world.delete(KEY, user_id="eve")

        assert world.redis.value(KEY) == world.table.meta[KEY]  # filled in by the way

    play(scenario)


@pytest.mark.rule("R1")
def test_a_lost_race_is_decided_again_by_the_same_event() -> None:
    """R1: after CONFLICT or LEASE_NEEDED the base is read again; the caller sees only the outcome."""

    async def scenario(world: LinkWorld) -> None:
        link = make_link(KEY)
        world.redis.store(link, None)
        plain_mutate = world.cache.mutate
        sent: list[Mutation] = []

        async def racing(mutation: Mutation) -> Verdict:
            sent.append(mutation)
            if len(sent) == 1:
                world.redis.store(make_link(KEY, version=2), None)  # another change comes first
            if len(sent) == 2:
                world.table.meta[KEY] = make_link(KEY, version=2)
                del world.redis.values[KEY]  # its entry expires
            return await plain_mutate(mutation)

        world.cache.mutate = racing  # type: ignore[method-assign]  # the world between two steps of ours

        tombstone = await world.delete(KEY)

        assert tombstone.version == 3
        assert [mutation.base_version for mutation in sent] == [1, 2, 2]
        assert [mutation.token is None for mutation in sent] == [True, True, False]
        assert len({mutation.event.event_id for mutation in sent}) == 1

    play(scenario)


@pytest.mark.rule("R1")
def test_a_stale_if_match_is_told_even_if_it_became_stale_in_the_race() -> None:
    """R1: the caller sees only a stale If-Match as 412."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.store(make_link(KEY), None)
        plain_mutate = world.cache.mutate

        async def racing(mutation: Mutation) -> Verdict:
            world.redis.store(make_link(KEY, version=2), None)
            return await plain_mutate(mutation)

        world.cache.mutate = racing  # type: ignore[method-assign]  # the world between two steps of ours

        with pytest.raises(Aborted):
            await world.delete(KEY, if_version=1)

    play(scenario)


@pytest.mark.rule("R2", "P5")
def test_a_delete_waits_for_a_held_lease_and_not_for_ever() -> None:
    """R2: another's lease is waited for, a second at most; then the caller is told to come again."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        held = await world.cache.lease(KEY)
        assert isinstance(held, Leased)
        async with asyncio.TaskGroup() as tasks:
            deletion = tasks.create_task(world.delete(KEY))
            await asyncio.sleep(0.5)
            await world.cache.release(KEY, held.token)
        assert deletion.result().version == 2

        other = LinkKey("abc-2")
        assert isinstance(await world.cache.lease(other, lease_ms=30_000), Leased)
        with pytest.raises(Unavailable):
            await world.delete(other)

        assert world.clock.monotonic() < 2

    play(scenario)
