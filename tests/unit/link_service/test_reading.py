"""Where answers for codes come from, and what is answered when somebody is away."""

import asyncio

import pytest

from chassis.errors import NotFound, Unavailable
from contracts.link import LinkKey, LinkState
from contracts.link_rows import Reservation
from link_service.ports import Leased
from shortener.link.v1 import link_pb2
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")


@pytest.mark.rule("R2", "R5")
def test_redis_answers_without_the_table() -> None:
    """R2: a present value is returned instead of a lease; the table is not asked."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        world.table.away = True

        answer = await world.resolve(code)

        assert (answer.link.short_code, answer.unconfirmed) == (code, False)

    play(scenario)


@pytest.mark.rule("R3", "R5")
def test_an_absent_link_is_read_from_the_table_once_and_kept() -> None:
    """R3: the read under the lease fills Redis, so that the next one finds it there."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)

        first, second = await world.resolve(KEY), await world.resolve(KEY)

        assert first == second
        assert not first.unconfirmed
        assert world.table.reads == 1

    play(scenario)


@pytest.mark.rule("R3", "P2")
def test_a_delete_during_the_read_wins() -> None:
    """R3: who filled too late answers with what is stored now: here the tombstone, acknowledged meanwhile."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)

        async def meanwhile() -> None:
            world.redis.store(make_link(KEY, version=2, state=LinkState.DELETED), None)

        world.table.network = meanwhile

        answer = await world.resolve(KEY)

        assert answer.link.state == link_pb2.LINK_STATE_DELETED

    play(scenario)


@pytest.mark.rule("R2")
def test_a_held_lease_does_not_make_readers_wait() -> None:
    """R2: while another holds the lease, a reader reads consistently and answers, but fills in nothing."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        assert isinstance(await world.cache.lease(KEY), Leased)

        answer = await world.resolve(KEY)

        assert answer.link.short_code == KEY
        assert world.redis.value(KEY) is None

    play(scenario)


@pytest.mark.rule("L4", "P5")
def test_without_redis_the_table_answers_unconfirmed() -> None:
    """L4: the table is read without Redis only when Redis cannot be reached, and the answer says so."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        world.redis.away = True

        answer = await world.resolve(KEY)

        assert (answer.link.short_code, answer.unconfirmed) == (KEY, True)

    play(scenario)


@pytest.mark.rule("L4", "R5")
def test_an_unconfirmed_absence_is_no_404() -> None:
    """L4: nothing in the table proves nothing while Redis is away: a link may not be persisted yet."""

    async def scenario(world: LinkWorld) -> None:
        world.redis.away = True
        with pytest.raises(Unavailable):
            await world.resolve(KEY)

        world.redis.away = False
        with pytest.raises(NotFound):
            await world.resolve(KEY)

    play(scenario)


@pytest.mark.rule("R5")
def test_a_table_that_is_away_is_no_404_either() -> None:
    """R5: "absent in Redis" needs the table's word; afterwards the lease was given back for the next reader."""

    async def scenario(world: LinkWorld) -> None:
        world.table.away = True
        with pytest.raises(Unavailable):
            await world.resolve(KEY)

        assert isinstance(await world.cache.lease(KEY), Leased)

    play(scenario)


@pytest.mark.rule("P5")
def test_a_hung_table_is_given_up() -> None:
    """Every wait has an end: a read that hangs is given up after 2 s, and the next one begins anew."""

    async def scenario(world: LinkWorld) -> None:
        plain, world.table.network = world.table.network, lambda: asyncio.sleep(3600)  # SIGSTOP
        before = world.clock.monotonic()
        with pytest.raises(Unavailable):
            await world.resolve(KEY)
        assert world.clock.monotonic() - before == pytest.approx(2)

        world.table.network = plain
        with pytest.raises(NotFound):
            await world.resolve(KEY)

    play(scenario)


@pytest.mark.rule("K2")
def test_a_reserved_code_is_no_link() -> None:
    """K2: a reservation answers as if there was nothing; so does a text that can be no code, without any look."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = _reservation(world)
        with pytest.raises(NotFound):
            await world.resolve(KEY)
        reads = world.table.reads
        for impossible in ("", "ab", "a/b", "x" * 65, "naïve"):
            with pytest.raises(NotFound):
                await world.resolve(impossible)

        assert world.table.reads == reads

    play(scenario)


def test_only_the_owner_gets_a_link_and_a_deleted_one_with_its_state() -> None:
    """GET of a deleted link is 200 with its state for its owner, and 404 for everybody else."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create()).short_code
        with pytest.raises(NotFound):
            await world.get(code, user_id="eve")
        await world.delete(code)

        assert (await world.get(code)).state == link_pb2.LINK_STATE_DELETED

    play(scenario)


def _reservation(world: LinkWorld) -> Reservation:
    link = make_link(KEY)
    return Reservation(
        key=KEY, user_id=link.user_id, event_id=link.event_id, at=world.clock.now(), redis_run_id="run-1"
    )
