"""R8: what is put back into a Redis that may have forgotten, for which of its runs, and until when."""

import pytest

from contracts.link import LinkState
from link_service.domain.recovery import Remembered
from link_service.ports import Done, Full, Leased, Present, Restoring
from tests.contract.link_cache.worlds import Play, World, mutation_of, new_link, next_of


async def restored(world: World) -> None:
    """Says that everything was put back, and opens the gate."""
    run_id = (await world.recovery.standing()).run_id
    assert await world.recovery.complete(run_id, unsettled={})
    world.gate.open(run_id)


@pytest.mark.rule("R8")
def test_a_run_is_restored_when_it_was_said_of_this_very_run(play: Play) -> None:
    """R8: an empty Redis is not restored; saying so of another run changes nothing; of this run it stays said."""

    async def scenario(world: World) -> None:
        standing = await world.recovery.standing()
        assert not standing.restored

        assert not await world.recovery.complete("another", unsettled={})
        assert not (await world.recovery.standing()).restored
        assert await world.recovery.complete(standing.run_id, unsettled={})

        after = await world.recovery.standing()
        assert (after.run_id, after.restored) == (standing.run_id, True)

    play(scenario)


@pytest.mark.rule("R8")
def test_what_is_absent_or_older_is_put_back_without_an_expiry(play: Play) -> None:
    """R8: newer and equal versions stay as they are, expiry included; what is put back has none."""

    async def scenario(world: World) -> None:
        run_id = (await world.recovery.standing()).run_id
        absent, older, same = new_link(), new_link(), new_link()
        newer = next_of(older, state=LinkState.DELETED)
        for link in (older, same):
            await world.cache.mutate(mutation_of(link, generated=True))
            await world.persisted(link)

        assert await world.recovery.restore([absent, newer, same, older], run_id) == 2

        assert [await world.cache.get(link.key) for link in (absent, older, same)] == [absent, newer, same]
        assert await world.ttl_s(absent.key) is None
        assert await world.ttl_s(newer.key) is None
        assert await world.ttl_s(same.key) is not None

    play(scenario)


@pytest.mark.rule("R8")
def test_nothing_is_put_back_into_another_run_or_a_restored_one(play: Play) -> None:
    """R8: a restorer that was paused must not put an old version over what was changed, written and forgotten since."""

    async def scenario(world: World) -> None:
        run_id = (await world.recovery.standing()).run_id
        link = new_link()

        assert await world.recovery.restore([link], "another") is None
        assert await world.cache.get(link.key) is None
        await world.recovery.complete(run_id, unsettled={})
        assert await world.recovery.restore([link], run_id) is None

        assert await world.cache.get(link.key) is None

    play(scenario)


@pytest.mark.rule("R8", "P2")
def test_a_shut_gate_lets_nothing_pass(play: Play) -> None:
    """R8: no change, no lease, no fill; nothing is done."""

    async def scenario(world: World) -> None:
        link, known = new_link(), new_link()
        await world.cache.mutate(mutation_of(known, generated=True))

        for call in (world.gated.mutate(mutation_of(link, generated=True)), world.gated.lease(known.key)):
            with pytest.raises(Restoring) as caught:
                await call
            assert caught.value.retry_after_s

        assert await world.cache.get(link.key) is None
        assert (await world.outbox.depth()).entries == 1

    play(scenario)


@pytest.mark.rule("R8", "P2")
def test_a_gate_that_is_open_for_another_run_lets_nothing_pass(play: Play) -> None:
    """R8: Redis itself refuses: a process that has not heard of the restart changes nothing, takes no absence for an
    answer, fills nothing in. What was applied is still told: it is there."""

    async def scenario(world: World) -> None:
        known, wanted, absent = new_link(), new_link(), new_link()
        await world.cache.mutate(mutation_of(known, generated=True))
        lease = await world.cache.lease(absent.key)
        assert isinstance(lease, Leased)
        world.gate.open("another")

        with pytest.raises(Restoring):
            await world.gated.mutate(mutation_of(wanted, generated=True))
        with pytest.raises(Restoring):
            await world.gated.mutate(mutation_of(next_of(known)))
        for link in (known, wanted):
            with pytest.raises(Restoring):
                await world.gated.lease(link.key)
        assert await world.gated.fill(lease.token, absent) == absent

        assert await world.gated.mutate(mutation_of(known, generated=True)) == Done(known, repeated=True)
        assert [await world.cache.get(link.key) for link in (known, wanted, absent)] == [known, None, None]
        assert (await world.outbox.depth()).entries == 1
        assert not await world.lease_is_held(wanted.key)

    play(scenario)


@pytest.mark.rule("R8")
def test_a_change_that_came_too_late_is_not_judged_by_a_redis_that_may_have_forgotten(play: Play) -> None:
    """R8, I1: LATE would say that it was never applied; a Redis that has forgotten cannot know."""

    async def scenario(world: World) -> None:
        wanted = new_link()
        world.gate.open("another")
        past = (await world.cache.now()).replace(year=2020)

        with pytest.raises(Restoring):
            await world.gated.mutate(mutation_of(wanted, generated=True, not_after=past))

    play(scenario)


@pytest.mark.rule("R8")
def test_a_gate_that_is_open_for_this_run_is_no_hindrance(play: Play) -> None:
    """R8: changes, leases and fills as ever."""

    async def scenario(world: World) -> None:
        await restored(world)
        link, absent = new_link(), new_link()

        assert await world.gated.mutate(mutation_of(link, generated=True)) == Done(link)
        assert await world.gated.lease(link.key) == Present(link)
        lease = await world.gated.lease(absent.key)
        assert isinstance(lease, Leased)
        await world.gated.fill(lease.token, absent)

        assert await world.cache.get(absent.key) == absent

    play(scenario)


@pytest.mark.rule("R8", "P1", "P2")
def test_a_redis_that_was_emptied_while_it_runs_lets_nothing_pass(play: Play) -> None:
    """R8: its run is the same, and the very next call is refused, not only those after somebody looked: an absence
    means nothing, and an event behind a version that is forgotten would be a second creation."""

    async def scenario(world: World) -> None:
        await restored(world)
        known = new_link()
        await world.gated.mutate(mutation_of(known, generated=True))

        await world.forget()

        with pytest.raises(Restoring):
            await world.gated.lease(known.key)
        with pytest.raises(Restoring):
            await world.gated.mutate(mutation_of(new_link(), generated=True))
        assert not (await world.recovery.standing()).restored
        await restored(world)
        assert isinstance(await world.gated.lease(known.key), Leased)

    play(scenario)


@pytest.mark.rule("R8")
def test_only_a_restored_run_is_told_how_far_the_log_went(play: Play) -> None:
    """R8: a note of another run, or before this one is restored, would hide what an older Redis has to be told."""

    async def scenario(world: World) -> None:
        run_id = (await world.recovery.standing()).run_id
        await world.recovery.note(run_id, {0: 5})
        assert await world.recovery.remembered() == Remembered({}, {})
        await world.recovery.complete(run_id, unsettled={})
        await world.recovery.note("another", {0: 6})
        assert await world.recovery.remembered() == Remembered({}, {})

        await world.recovery.note(run_id, {0: 7, 1: 8})

        assert await world.recovery.remembered() == Remembered({0: 7, 1: 8}, {})

    play(scenario)


@pytest.mark.rule("R8")
def test_what_is_unsettled_is_remembered_until_exactly_that_is_settled(play: Play) -> None:
    """R8: what was put back has no expiry; a pass that began before a second recovery does not settle that one's."""

    async def scenario(world: World) -> None:
        run_id = (await world.recovery.standing()).run_id
        await world.recovery.complete(run_id, unsettled={0: 5, 3: 9})
        assert (await world.recovery.remembered()).unsettled == {0: 5, 3: 9}

        await world.recovery.settled({0: 5})
        assert await world.recovery.unsettled() == {0: 5, 3: 9}
        await world.recovery.settled({3: 9, 0: 5})

        assert await world.recovery.unsettled() == {}

    play(scenario)


@pytest.mark.rule("R8", "R4")
def test_what_has_no_expiry_is_found_and_gets_one(play: Play) -> None:
    """R8, R4: present without an expiry: to be settled; absent or with one: not."""

    async def scenario(world: World) -> None:
        run_id = (await world.recovery.standing()).run_id
        back, known, absent = new_link(), new_link(), new_link()
        await world.cache.mutate(mutation_of(known, generated=True))
        await world.persisted(known)
        await world.recovery.restore([back], run_id)
        keys = [back.key, known.key, absent.key]
        assert list(await world.recovery.without_expiry(keys)) == [back.key]

        await world.recovery.persisted([back])

        assert list(await world.recovery.without_expiry(keys)) == []
        assert await world.cache.get(back.key) == back

    play(scenario)


@pytest.mark.rule("R8")
def test_one_restores_at_a_time(play: Play) -> None:
    """The lease spares others the work; it is not the relay's."""

    async def scenario(world: World) -> None:
        assert await world.recovery.lead("a", lease_ms=60_000)
        assert not await world.recovery.lead("b", lease_ms=60_000)
        assert await world.outbox.lead("b", lease_ms=60_000)

    play(scenario)


@pytest.mark.rule("R6", "R8", "O1")
def test_a_full_redis_is_restored_and_relayed_all_the_same(play: Play) -> None:
    """R6: beyond its maximum Redis refuses changes, but takes back what it forgot, keeps what cannot be read, and lets
    the relay trim: nothing of that may wait for room that it alone can make."""

    async def scenario(world: World) -> None:
        run_id = (await world.recovery.standing()).run_id
        known = new_link()
        await world.cache.mutate(mutation_of(known, generated=True))
        (entry,) = await world.outbox.read(wait_s=0.01)
        await world.fill_memory(1.2)
        assert await world.cache.mutate(mutation_of(new_link(), generated=True)) == Full("memory")
        assert await world.cache.mutate(mutation_of(next_of(known))) == Full("memory")
        lost = new_link()

        assert await world.recovery.restore([lost], run_id) == 1
        assert await world.recovery.complete(run_id, unsettled={1: 1})
        await world.recovery.note(run_id, {0: 1})
        await world.recovery.settled({1: 1})
        await world.outbox.set_aside(entry)
        await world.outbox.trim({entry.bucket: entry.position})
        assert await world.outbox.lead("a", lease_ms=60_000)
        await world.persisted(lost)

        assert await world.cache.get(lost.key) == lost
        assert await world.ttl_s(lost.key) is not None
        assert (await world.outbox.depth()).entries == 0
        await world.fill_memory(0.3)
        following = next_of(known)
        assert await world.cache.mutate(mutation_of(following)) == Done(following)

    play(scenario)
