"""Projections that are not what the events say, and how they become it again."""

from dataclasses import replace

import pytest

from chassis.auth import Caller, Plan, Principal, set_caller
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from contracts.link import EventId, FieldChange, Link, LinkKey, LinkState, UserId
from contracts.link_rows import Reservation
from contracts.scopes import ACCOUNT_SCOPES
from link_service.domain.projection import Ahead, repairs
from shortener.link.v1 import link_admin_service_pb2 as admin_pb
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")


def test_what_differs_is_named() -> None:
    """Each field that differs, as JSON text; an equal projection needs nothing; a newer one is left alone."""
    rebuilt = make_link(KEY, version=3)

    assert repairs(rebuilt, rebuilt) == ()
    assert repairs(replace(rebuilt, title="Lost", state=LinkState.BLOCKED), rebuilt) == (
        FieldChange("state", '"blocked"', '"active"'),
        FieldChange("title", '"Lost"', '"A title"'),
    )
    assert isinstance(repairs(make_link(KEY, version=4), rebuilt), Ahead)
    whole = repairs(None, rebuilt)
    assert isinstance(whole, tuple)
    assert FieldChange("tags", "", '["a", "b"]') in whole


@pytest.mark.rule("W1", "W2", "R4")
@pytest.mark.parametrize("loss", ["gone", "old", "damaged"])
def test_a_projection_is_made_again_from_the_events(loss: str) -> None:
    """W1: the event rows are the truth; the projection becomes what they say, and Redis forgets what it had from it."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        await world.persist()
        first = world.table.meta[KEY]
        assert isinstance(first, Link)
        await world.update(KEY, title="New")
        await world.persist()
        right = world.table.meta[KEY]
        assert isinstance(right, Link)
        if loss == "gone":
            del world.table.meta[KEY]
        else:
            world.table.meta[KEY] = first if loss == "old" else replace(right, long_url="https://example.org/wrong")
        if loss == "old":
            world.redis.store(first, 60)  # filled from the old projection

        repaired = await world.rebuild(KEY)
        again = await world.rebuild(KEY)

        assert world.table.meta[KEY] == right
        assert repaired.link == again.link
        assert repaired.link.title == "New"
        assert "long_url" in [change.field for change in repaired.changes] or loss == "old"
        assert list(again.changes) == []
        assert (await world.resolve(KEY)).link.version == 2

    play(scenario)


@pytest.mark.rule("W2")
def test_a_newer_projection_is_never_taken_back() -> None:
    """W2: newer than every event row means that rows are lost; nothing is changed, and it is said."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        await world.persist()
        newer = world.table.meta[KEY] = make_link(KEY, version=7)

        with pytest.raises(FailedPrecondition):
            await world.rebuild(KEY)

        assert world.table.meta[KEY] == newer

    play(scenario)


def test_whose_links_are_repaired() -> None:
    """Without event rows there is no link; a stranger's is not found; a table that is away is told as such."""

    async def scenario(world: LinkWorld) -> None:
        await world.create(KEY)
        with pytest.raises(NotFound):
            await world.rebuild(KEY)
        await world.persist()
        with pytest.raises(NotFound):
            await world.rebuild(KEY, user_id="eve")
        world.table.away = True
        with pytest.raises(Unavailable):
            await world.rebuild(KEY)

    play(scenario)


async def all_pages(world: LinkWorld, *, rows: int) -> tuple[int, int, list[tuple[str, str]]]:
    """Rebuilt, unchanged, and the failures, over all pages."""
    rebuilt, unchanged, failures, token = 0, 0, [], ""
    while True:
        page = await world.rebuild_page(rows=rows, token=token)
        rebuilt, unchanged = rebuilt + page.rebuilt, unchanged + page.unchanged
        failures += [(failed.short_code, failed.reason) for failed in page.failures]
        token = page.next_page_token
        if not token:
            return rebuilt, unchanged, failures


@pytest.mark.rule("W1", "W2")
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_all_links_are_rebuilt_page_by_page_each_once(rows: int) -> None:
    """Of whichever account, however their rows fall on pages; what needs a person is named and stops nothing."""

    async def scenario(world: LinkWorld) -> None:
        for number in range(6):
            await world.create(f"abc-{number}", user_id=f"user-{number % 2}")
            await world.update(f"abc-{number}", user_id=f"user-{number % 2}", title="New")
        await world.persist()
        right = dict(world.table.meta)
        del world.table.meta[LinkKey("abc-0")]
        world.table.meta[LinkKey("abc-1")] = make_link("abc-1", user_id="user-1")
        world.table.meta[LinkKey("abc-2")] = ahead = make_link("abc-2", version=9, user_id="user-0")
        world.table.meta[LinkKey("abc-9")] = make_link("abc-9")  # its events are lost
        reserved = Reservation(
            key=LinkKey("abc-8"),
            user_id=UserId("ada"),
            event_id=EventId("e"),
            at=world.clock.now(),
            redis_run_id="run-1",
        )
        world.table.meta[reserved.key] = reserved

        first = await all_pages(world, rows=rows)
        second = await all_pages(world, rows=rows)

        failures = [("abc-2", "STATE_CONFLICT"), ("abc-9", "LINK_NOT_FOUND")]
        assert (first, second) == ((2, 3, failures), (0, 5, failures))
        assert {key: world.table.meta[key] for key in right} == right | {ahead.key: ahead}
        assert world.table.meta[reserved.key] == reserved

    play(scenario)


def test_a_page_that_could_not_be_read_is_repeated() -> None:
    """A table that is away fails the page as a whole; nothing of it is told as done."""

    async def scenario(world: LinkWorld) -> None:
        await world.create("abc-1")
        await world.persist()
        world.table.away = True
        with pytest.raises(Unavailable):
            await world.rebuild_page()
        world.table.away, world.redis.away = False, True
        with pytest.raises(Unavailable):
            await world.rebuild_page()
        world.redis.away = False

        assert (await world.rebuild_page()).unchanged == 1
        with pytest.raises(InvalidArgument):
            await world.rebuild_page(token="x")

    play(scenario)


def test_only_operators_touch_the_links_of_all() -> None:
    """All scopes of an account together do not do."""

    async def scenario(world: LinkWorld) -> None:
        set_caller(Caller(None, Principal("ada", frozenset(ACCOUNT_SCOPES), Plan.PREMIUM)))
        with pytest.raises(PermissionDenied):
            await world.administration.RebuildLinks(admin_pb.RebuildLinksRequest(), None)

    play(scenario)
