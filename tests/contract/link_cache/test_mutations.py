"""R1, R4, R5, R6 and O3: what may be written, in which order the checks come, and when an entry may go."""

from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.cache import CACHE_TTL_S, LeaseToken
from contracts.link import Link, LinkState, bucket_of
from contracts.outbox_entries import decode_outbox_entry, encode_outbox_entry
from link_service.ports import Conflict, Done, Full, Held, Late, Leased, LeaseNeeded, Present
from tests.contract.link_cache.worlds import Play, World, mutation_of, new_link, next_of, until

DELETED = LinkState.DELETED


async def created(world: World, code: str = "") -> Link:
    link = new_link(code)
    assert await world.cache.mutate(mutation_of(link, generated=True)) == Done(link)
    return link


async def leased(world: World, link: Link, *, lease_ms: int = 60_000) -> LeaseToken:
    lease = await world.cache.lease(link.key, lease_ms=lease_ms)
    assert isinstance(lease, Leased)
    return lease.token


async def outbox_event_ids(world: World) -> list[str]:
    return [decode_outbox_entry(entry.data).event_id for entry in await world.outbox.read(wait_s=0.01)]


@pytest.mark.rule("R1", "P1")
def test_a_mutation_writes_value_and_event_in_one_step(play: Play) -> None:
    """R1: after Done the value is readable, the complete event is in the outbox of its bucket, nothing expires."""

    async def scenario(world: World) -> None:
        link = new_link()
        mutation = replace(mutation_of(link, generated=True), traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")

        verdict = await world.cache.mutate(mutation)

        assert verdict == Done(link)
        assert await world.cache.get(link.key) == link
        assert await world.ttl_s(link.key) is None
        (entry,) = await world.outbox.read(wait_s=0.01)
        assert entry.bucket == bucket_of(link.key)
        assert entry.data == encode_outbox_entry(mutation.event, mutation.traceparent)

    play(scenario)


@pytest.mark.rule("I1", "P6")
def test_nothing_to_do_is_remembered_and_never_done_later(play: Play) -> None:
    """I1: the result of an event that was not needed is kept, the first one stays; the event is never applied."""

    async def scenario(world: World) -> None:
        link = await created(world)
        unneeded, other = next_of(link), next_of(link)
        soon = await world.cache.now() + timedelta(seconds=60)
        assert await world.cache.remember(link.key, unneeded.event_id, link, soon) == link

        assert await world.cache.remember(link.key, unneeded.event_id, other, soon) == link
        assert await world.cache.seen(link.key, unneeded.event_id) == link
        assert await world.cache.mutate(mutation_of(unneeded, remember=True)) == Done(link, repeated=True)
        assert await world.cache.get(link.key) == link
        assert await world.cache.mutate(mutation_of(other, remember=True)) == Done(other)
        assert await world.cache.remember(link.key, other.event_id, link, soon) == other
        assert await outbox_event_ids(world) == [link.event_id, other.event_id]

    play(scenario)


@pytest.mark.rule("I1", "P6")
def test_nothing_to_do_is_not_remembered_when_it_is_too_late(play: Play) -> None:
    """I1: past not_after another event may stand for the request; only a result that is kept already is told."""

    async def scenario(world: World) -> None:
        link, now = await created(world), await world.cache.now()
        past, soon = now - timedelta(seconds=1), now + timedelta(seconds=60)
        unneeded, kept = next_of(link), next_of(link)

        assert await world.cache.remember(link.key, unneeded.event_id, link, past) == Late()
        assert await world.cache.seen(link.key, unneeded.event_id) is None
        assert await world.cache.remember(link.key, kept.event_id, link, soon) == link
        assert await world.cache.remember(link.key, kept.event_id, kept, past) == link

    play(scenario)


@pytest.mark.rule("R1", "P6")
@pytest.mark.parametrize("remember", [False, True])
def test_a_repeated_event_is_answered_by_its_result_and_applied_once(play: Play, remember: bool) -> None:
    """R1 (a): the event that made the stored value is answered by it, and no second event is written."""

    async def scenario(world: World) -> None:
        link = new_link()
        mutation = mutation_of(link, generated=True, remember=remember)

        first, second = await world.cache.mutate(mutation), await world.cache.mutate(mutation)

        assert (first, second) == (Done(link), Done(link, repeated=True))
        assert await outbox_event_ids(world) == [link.event_id]

    play(scenario)


@pytest.mark.rule("R1", "P6")
def test_a_remembered_event_has_its_result_when_newer_versions_stand_and_when_late(play: Play) -> None:
    """R1 (a) before (b) and (c): `seen` answers with the stored result, whatever the value and the clock say by now."""

    async def scenario(world: World) -> None:
        link = new_link()
        assert await world.cache.mutate(mutation_of(link, generated=True, remember=True)) == Done(link)
        newer = next_of(link)
        assert await world.cache.mutate(mutation_of(newer)) == Done(newer)
        long_ago = await world.cache.now() - timedelta(hours=1)

        again = await world.cache.mutate(mutation_of(link, generated=True, remember=True, not_after=long_ago))

        assert again == Done(link, repeated=True)
        assert await world.cache.get(link.key) == newer
        assert await world.cache.seen(link.key, link.event_id) == link
        assert await world.cache.seen(link.key, newer.event_id) is None

    play(scenario)


@pytest.mark.rule("R1")
def test_the_value_of_the_event_itself_answers_before_late(play: Play) -> None:
    """R1 (a) before (b): also without `seen`, the stored value of this very event is a success, not LATE."""

    async def scenario(world: World) -> None:
        link = await created(world)
        long_ago = await world.cache.now() - timedelta(hours=1)

        assert await world.cache.mutate(mutation_of(link, not_after=long_ago)) == Done(link, repeated=True)

    play(scenario)


@pytest.mark.rule("R1", "I1")
def test_late_is_judged_by_redis_time_and_before_conflict_and_lease(play: Play) -> None:
    """R1 (b) before (c): past not_after, by Redis' clock, nothing is written and no refusal is given."""

    async def scenario(world: World) -> None:
        now = await world.cache.now()
        past, future = now - timedelta(seconds=1), now + timedelta(seconds=60)
        absent, link = new_link(), await created(world)
        stale = replace(mutation_of(next_of(next_of(link))), not_after=past)

        assert await world.cache.mutate(mutation_of(absent, generated=True, not_after=past)) == Late()
        assert await world.cache.mutate(mutation_of(absent, not_after=past)) == Late()
        assert await world.cache.mutate(stale) == Late()
        assert await world.cache.get(absent.key) is None
        assert await world.cache.mutate(mutation_of(absent, generated=True, not_after=future)) == Done(absent)

    play(scenario)


@pytest.mark.rule("R1", "P3")
def test_a_present_value_must_have_exactly_the_base_version(play: Play) -> None:
    """R1 (c): older and newer bases conflict, and a create over a stored value always does, generated or leased."""

    async def scenario(world: World) -> None:
        first = await created(world)
        second = next_of(first)
        assert await world.cache.mutate(mutation_of(second)) == Done(second)

        assert await world.cache.mutate(mutation_of(next_of(first))) == Conflict()
        assert await world.cache.mutate(mutation_of(next_of(next_of(second)))) == Conflict()
        again = new_link(first.short_code)
        assert await world.cache.mutate(mutation_of(again, generated=True)) == Conflict()
        assert await world.cache.mutate(mutation_of(again, token=LeaseToken(b"any"))) == Conflict()
        assert await world.cache.get(first.key) == second
        assert await outbox_event_ids(world) == [first.event_id, second.event_id]

    play(scenario)


@pytest.mark.rule("R1", "R2")
def test_an_absent_value_needs_the_current_lease_unless_it_is_a_generated_create(play: Play) -> None:
    """R1 (c): no token, a wrong one, and one whose lease was used up are refused; `generated` excuses only creates."""

    async def scenario(world: World) -> None:
        custom, update = new_link(), next_of(new_link())

        assert await world.cache.mutate(mutation_of(custom)) == LeaseNeeded()
        token = await leased(world, custom)
        assert await world.cache.mutate(mutation_of(custom, token=LeaseToken(b"another"))) == LeaseNeeded()
        assert await world.cache.mutate(mutation_of(update, generated=True)) == LeaseNeeded()
        assert await world.cache.mutate(mutation_of(custom, token=token)) == Done(custom)

    play(scenario)


@pytest.mark.rule("R1", "R2")
def test_a_write_ends_the_lease(play: Play) -> None:
    """R2: the lease is gone after the write, so that its token opens nothing later, even if the value expires."""

    async def scenario(world: World) -> None:
        link = new_link()
        token = await leased(world, link)
        assert await world.cache.mutate(mutation_of(link, token=token)) == Done(link)
        assert not await world.lease_is_held(link.key)
        await world.persisted(link)
        await world.expire(link.key)

        assert await world.cache.mutate(mutation_of(next_of(link), token=token)) == LeaseNeeded()

    play(scenario)


@pytest.mark.rule("R1", "R5")
def test_a_mutation_takes_a_persisted_entrys_expiry_away(play: Play) -> None:
    """R1 (d): a plain SET. An entry that would expire before the tables hold its new version would break R5."""

    async def scenario(world: World) -> None:
        link = await created(world)
        await world.persisted(link)
        assert await world.ttl_s(link.key) is not None

        deleted = next_of(link, state=DELETED)
        assert await world.cache.mutate(mutation_of(deleted)) == Done(deleted)

        assert await world.ttl_s(link.key) is None
        await world.persisted(link)
        assert await world.ttl_s(link.key) is None, "an older version's persistence is not this one's"

    play(scenario)


@pytest.mark.rule("R4")
def test_persisted_gives_its_own_version_an_expiry_with_jitter(play: Play) -> None:
    """R4: equal version and event: 24 h, spread by a fifth both ways; a tombstone stays for 24 h from there."""

    async def scenario(world: World) -> None:
        times = []
        for _ in range(20):
            link = await created(world)
            await world.persisted(link)
            times.append(await world.ttl_s(link.key) or 0.0)
        tombstone = next_of(link, state=DELETED)
        await world.cache.mutate(mutation_of(tombstone))
        await world.persisted(tombstone)

        assert all(0.8 * CACHE_TTL_S - 10 <= ttl <= 1.2 * CACHE_TTL_S for ttl in times)
        assert max(times) - min(times) > 600
        assert await world.ttl_s(link.key) == pytest.approx(CACHE_TTL_S, abs=10)

    play(scenario)


@pytest.mark.rule("R4")
def test_persisted_repairs_older_leaves_newer_and_creates_nothing(play: Play) -> None:
    """R4: an older entry is replaced (with expiry), a newer one and one of another event stand, absent stays absent."""

    async def scenario(world: World) -> None:
        old = await created(world)
        newer = next_of(old)
        lost, other = new_link(), replace(newer, event_id=new_link().event_id)

        await world.persisted(lost)
        await world.persisted(newer)

        assert await world.cache.get(lost.key) is None
        assert await world.cache.get(old.key) == newer
        assert await world.ttl_s(old.key) is not None
        newest = next_of(newer)
        assert await world.cache.mutate(mutation_of(newest)) == Done(newest)
        await world.persisted(newer)
        await world.persisted(replace(other, version=newest.version))
        assert await world.cache.get(old.key) == newest
        assert await world.ttl_s(old.key) is None

    play(scenario)


@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    ("share", "live_s", "tombstone_s"), [(0.45, CACHE_TTL_S, CACHE_TTL_S), (0.6, 3600, 3600), (0.75, 60, 60)]
)
def test_expiries_shrink_as_memory_fills(play: Play, share: float, live_s: int, tombstone_s: int) -> None:
    """R6: 24 h below half of the memory, 1 h up to 70 %, 60 s beyond."""

    async def scenario(world: World) -> None:
        await world.fill_memory(share)
        link = await created(world)
        await world.persisted(link)
        live = await world.ttl_s(link.key) or 0.0
        tombstone = next_of(link, state=DELETED)
        await world.cache.mutate(mutation_of(tombstone))
        await world.persisted(tombstone)

        assert 0.8 * live_s - 10 <= live <= 1.2 * live_s
        assert await world.ttl_s(link.key) == pytest.approx(tombstone_s, abs=10)

    play(scenario)


@pytest.mark.rule("R6", "O3")
@pytest.mark.parametrize(("share", "creates", "changes"), [(0.8, True, True), (0.9, False, True), (0.97, False, False)])
def test_creates_are_refused_before_changes(play: Play, share: float, creates: bool, changes: bool) -> None:
    """R6: at 85 % of the memory creates are refused, at 95 % updates and deletes; a repeat still gets its result."""

    async def scenario(world: World) -> None:
        link = await created(world)
        await world.fill_memory(share)

        fresh, deleted = new_link(), next_of(link, state=DELETED)
        create = await world.cache.mutate(mutation_of(fresh, generated=True))
        repeat = await world.cache.mutate(mutation_of(link, generated=True))
        change = await world.cache.mutate(mutation_of(deleted))

        assert create == (Done(fresh) if creates else Full("memory"))
        assert change == (Done(deleted) if changes else Full("memory"))
        assert repeat == Done(link, repeated=True)
        assert await world.cache.get(fresh.key) == (fresh if creates else None)

    play(scenario)


@pytest.mark.rule("R6", "R2")
def test_at_the_limit_of_memory_expiries_and_present_values_still_answer(play: Play) -> None:
    """R6: with memory used up, `persisted` still sets expiries (or memory could never be freed), `lease` still returns
    what is there, and grants nothing."""

    async def scenario(world: World) -> None:
        link, absent = await created(world), new_link()
        await world.fill_memory(1.2)

        await world.persisted(link)

        assert await world.ttl_s(link.key) is not None
        assert await world.cache.lease(link.key) == Present(link)
        assert await world.cache.lease(absent.key) == Held()
        assert await world.outbox.lead("relay", lease_ms=60_000)

    play(scenario)


@pytest.mark.rule("O3")
def test_the_outbox_budget_refuses_creates_first_and_keeps_a_reserve_for_deletes(play: Play) -> None:
    """O3: when creates are refused for the outbox' size, deletes still pass; when these are too, nothing is trimmed,
    and once the relay has trimmed, creates pass again."""

    async def scenario(world: World) -> None:
        known = await created(world, "bucket-0")
        bucket, number = bucket_of(known.key), 0
        codes = (code for code in (f"n{i}" for i in range(100_000)) if bucket_of(new_link(code).key) == bucket)
        while (verdict := await world.small.mutate(mutation_of(new_link(next(codes)), generated=True))) != Full(
            "outbox"
        ):
            assert isinstance(verdict, Done)
            number += 1

        deleted = next_of(known, state=DELETED)
        assert await world.small.mutate(mutation_of(deleted)) == Done(deleted)
        last = deleted
        while (verdict := await world.small.mutate(mutation_of(next_of(last)))) != Full("outbox"):
            assert isinstance(verdict, Done)
            last = verdict.link
            number += 1

        waiting = await world.outbox.depth()
        assert waiting.entries == number + 2
        await drain(world)
        assert (await world.outbox.depth()).entries == 0
        assert isinstance(await world.small.mutate(mutation_of(new_link(next(codes)), generated=True)), Done)

    play(scenario)


async def drain(world: World) -> None:
    async def empty() -> bool:
        entries = await world.outbox.read(wait_s=0.01)
        await world.outbox.trim({entry.bucket: entry.position for entry in entries})
        return not entries

    await until(empty)
