"""Projections that are not what the events say, and how they become it again."""

from dataclasses import replace

import pytest

from chassis.errors import FailedPrecondition, NotFound, Unavailable
from contracts.link import FieldChange, Link, LinkKey, LinkState
from link_service.domain.projection import Ahead, repairs
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
