"""The past of a link: pages of events, and the link at a time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidArgument, NotFound, Unavailable
from contracts.link import LinkKey
from link_service.domain.history import BadTokenError, Search, first_version, page_size_of, page_token
from shortener.link.v1 import link_pb2
from tests.fakes.link_service_world import LinkWorld, play

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_tokens_are_for_one_link() -> None:
    """A token leads to the version it was made for; everything else is refused, not guessed at."""
    key = LinkKey("go.example.com/my code")
    token = page_token(key, 7)

    assert first_version(token, key) == 7
    assert first_version("", key) == 1
    for bad in (token[:-2], token + "A", "7", "é", page_token(LinkKey("other"), 7), page_token(key, 0), "=" * 5):
        with pytest.raises(BadTokenError):
            first_version(bad, key)
    assert [page_size_of(wanted) for wanted in (-1, 0, 1, 100, 101)] == [50, 50, 1, 100, 100]


@pytest.mark.rule("W3")
@given(
    gaps=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    asked=st.integers(0, 200),
    stored=st.integers(0, 40),
)
def test_the_search_finds_the_newest_version_that_is_not_younger_or_knows_that_it_cannot(
    gaps: list[int], asked: int, stored: int
) -> None:
    """W3: times follow versions, so halving finds the right one; what is not in the table yet is never passed over."""
    times = [START]
    for gap in gaps:
        times.append(times[-1] + gap * HOUR)
    moment = START + min(asked, sum(gaps) - 1) * HOUR  # before the newest version: what a search is for
    search = Search(asked=moment, low=1, high=len(times))
    probes = 0

    while (version := search.probe) is not None:
        probes += 1
        search = search.narrowed(version, times[version - 1] if version <= stored else None)

    right = max(number for number, at in enumerate(times, 1) if at <= moment)
    assert probes <= len(times).bit_length()
    if search.is_certain:
        assert search.low == right
    else:
        assert search.low <= right
        assert search.high > stored


def test_every_event_is_listed_newest_last_and_the_answer_says_whether_that_is_all() -> None:
    """Pages join without gap or repeat; before the newest events are in the table, current_version is ahead of them."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create("abc-1")).short_code
        await world.update(code, title="New")
        await world.delete(code)
        early = await world.history(code)
        assert (list(early.events), early.next_page_token, early.current_version) == ([], "", 3)
        await world.persist()
        await world.restore(code)

        pages = [await world.history(code, page_size=2)]
        while pages[-1].next_page_token:
            pages.append(await world.history(code, page_size=2, page_token=pages[-1].next_page_token))

        assert [[event.version for event in page.events] for page in pages] == [[1, 2], [3]] + [[]] * (len(pages) - 2)
        assert {page.current_version for page in pages} == {4}
        await world.persist()
        events = (await world.history(code)).events
        assert [event.event_type.rpartition(".")[2] for event in events] == [
            "LinkCreated", "LinkUpdated", "LinkDeleted", "LinkRestored",
        ]  # fmt: skip
        (change,) = events[1].changes
        assert (change.field, change.old_value, change.new_value) == ("title", '""', '"New"')
        assert events[2].link.state == link_pb2.LINK_STATE_DELETED
        assert all(event.link.version == event.version for event in events)

    play(scenario)


def test_a_history_is_its_owners() -> None:
    """A stranger, and who asks for what never was, get 404; a token of another link is the caller's mistake."""

    async def scenario(world: LinkWorld) -> None:
        code = (await world.create("abc-1")).short_code
        await world.persist()

        for name, user_id in ((code, "eve"), ("none-1", "ada")):
            with pytest.raises(NotFound):
                await world.history(name, user_id=user_id)
            with pytest.raises(NotFound):
                await world.get_at(name, world.clock.now(), user_id=user_id)
        with pytest.raises(InvalidArgument):
            await world.history(code, page_token=page_token(LinkKey("other"), 1))
        world.table.away = True
        with pytest.raises(Unavailable):
            await world.history(code)

    play(scenario)


@pytest.mark.rule("W3")
def test_a_link_is_shown_as_it_was_at_a_time() -> None:
    """The newest version that is not younger than the time, in the state of that time; before the first: 404."""

    async def scenario(world: LinkWorld) -> None:
        begin = world.clock.now()
        await world.create("abc-1", long_url="https://one.example/")
        steps = [begin]
        await world.clock.sleep(60)
        await world.update("abc-1", long_url="https://two.example/")
        steps.append(world.clock.now())
        await world.clock.sleep(60)
        await world.delete("abc-1")
        steps.append(world.clock.now())
        await world.clock.sleep(60)
        await world.restore("abc-1")
        steps.append(world.clock.now())
        await world.persist()

        shown = [await world.get_at("abc-1", at + timedelta(seconds=shift)) for at in steps for shift in (0, 59)]

        assert [link.version for link in shown] == [1, 1, 2, 2, 3, 3, 4, 4]
        assert [link.long_url for link in shown[1:3]] == ["https://one.example/", "https://two.example/"]
        assert shown[4].state == link_pb2.LINK_STATE_DELETED
        assert (await world.get_at("abc-1", steps[-1] + 1000 * HOUR)).version == 4
        with pytest.raises(NotFound):
            await world.get_at("abc-1", begin - timedelta(milliseconds=1))

    play(scenario)


def test_the_state_is_that_of_the_time() -> None:
    """What has expired since was active then."""

    async def scenario(world: LinkWorld) -> None:
        now = world.clock.now()
        await world.create("abc-1")
        await world.update("abc-1", expires_at=now + HOUR)
        await world.clock.sleep(2 * 3600)

        assert (await world.get("abc-1")).state == link_pb2.LINK_STATE_EXPIRED
        assert (await world.get_at("abc-1", now + HOUR / 2)).state == link_pb2.LINK_STATE_ACTIVE
        assert (await world.get_at("abc-1", now + HOUR)).state == link_pb2.LINK_STATE_EXPIRED

    play(scenario)


def test_a_time_whose_events_are_not_in_the_table_yet_is_not_guessed_at() -> None:
    """503 with Retry-After until the rows are there; the newest version needs no row, since Redis has it."""

    async def scenario(world: LinkWorld) -> None:
        await world.create("abc-1")
        await world.persist()
        times = []
        for title in ("One", "Two"):
            await world.clock.sleep(60)
            await world.update("abc-1", title=title)
            times.append(world.clock.now())
        world.table.away = True
        assert (await world.get_at("abc-1", times[1])).title == "Two"
        world.table.away = False

        with pytest.raises(Unavailable):
            await world.get_at("abc-1", times[0])
        await world.persist()
        assert (await world.get_at("abc-1", times[0])).title == "One"

    play(scenario)
