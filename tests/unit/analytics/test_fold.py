"""A record and the rows it touches: when a click counts, as what, and that it counts once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import HOUR_MS, AnyId, Arrival, Day, Hour, Origin, RowId, TopId, VisitorClass, hour_of
from analytics.domain.rows import AnyImage, Applied, Row, RowImage, TopImage, TopRow, Visitors
from analytics.domain.tallies import REST
from contracts.link import LinkKey, UserId
from tests.fakes.analytics_clicks import T0_MS, arrival, click

DAY_MS = 24 * HOUR_MS
ROW = RowId(LinkKey("aB3dE7x"), Hour(T0_MS // HOUR_MS), 0)
HUMAN, BOT, PREFETCH = VisitorClass.HUMAN, VisitorClass.BOT, VisitorClass.PREFETCH


def fold(arrivals: Sequence[Arrival], table: dict[AnyId, AnyImage] | None = None, epoch: int = 1) -> Book:
    """An owner's book of partition 0 after these records, with the rows of this table."""
    book = Book(rows_max=1000, dirty_max=1000)
    book.assign(Checkpoint(0, epoch))
    book.admit(book.missing(arrivals), table or {})
    book.fold(arrivals)
    return book


def image_of(book: Book, row_id: RowId = ROW) -> RowImage:
    """The one row of a link and an hour."""
    (image,) = rows_of(book, row_id.key, range(row_id.hour, row_id.hour + 1))
    return image


def rows_of(book: Book, key: LinkKey, hours: range) -> list[RowImage]:
    """All rows in memory of a link, also those that are as in the table, which no question needs."""
    return [row.image() for row in book._partitions[0].links_of(key, hours)]


def top_of(book: Book, user: str) -> TopImage:
    """The one row of an account's top links at T0."""
    day = T0_MS // DAY_MS
    (row,) = book._partitions[0].tops_of(UserId(user), range(day, day + 1))
    return row.image()


@pytest.mark.rule("A5")
@pytest.mark.parametrize(
    ("at_ms", "expected_ms"),
    [
        (T0_MS, T0_MS),
        (T0_MS - DAY_MS, T0_MS - DAY_MS),
        (T0_MS - DAY_MS - 1, T0_MS - DAY_MS),
        (0, T0_MS - DAY_MS),
        (T0_MS + 5 * 60_000, T0_MS + 5 * 60_000),
        (T0_MS + HOUR_MS + 5 * 60_000 + 1, T0_MS + 5 * 60_000),
        (10 * T0_MS, T0_MS + 5 * 60_000),
    ],
)
def test_a_gateways_clock_is_trusted_within_bounds(at_ms: int, expected_ms: int) -> None:
    """A click counts when the gateway says, but at most a day before and five minutes after the broker stored it."""
    assert hour_of(at_ms, T0_MS) == expected_ms // HOUR_MS


@pytest.mark.rule("S7")
def test_classes_are_counted_apart() -> None:
    """People, bots and prefetches have a count each; only people are visitors, and only they have labels."""
    classes = [HUMAN, HUMAN, HUMAN, BOT, BOT, PREFETCH]
    book = fold(
        [arrival(0, *[click(visitor=str(n), visitor_class=kind, labels=("cDE",)) for n, kind in enumerate(classes)])]
    )

    image = image_of(book)

    assert (image.human, image.bot, image.prefetches) == (3, 2, 1)
    assert image.labels == {"cDE": 3}
    assert image.applied == Applied(1, 0)
    visitors = Visitors()
    visitors.add(image.visitors)
    assert visitors.estimate() == 3


@pytest.mark.rule("A2", "A5")
@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=12),
    st.sets(st.sampled_from("abc")),
    st.data(),
)
def test_a_replay_changes_nothing(batches: list[list[str]], stored: set[str], data: st.DataObject) -> None:
    """Some rows were written after some record, and everything is folded again from some record before: each record is
    in each row once, whole, also if several of its clicks meet the same row.
    """
    log = [arrival(offset, *[click(key, user="u") for key in keys]) for offset, keys in enumerate(batches)]
    crash = data.draw(st.integers(0, len(log)))
    first = fold(log[:crash])
    hours = range(ROW.hour, ROW.hour + 1)
    table: dict[AnyId, AnyImage] = {row.id: row for key in stored for row in first.read(LinkKey(key), 0, hours)}

    book = fold(log, table)

    for key in "abc":
        rows = rows_of(book, LinkKey(key), hours)
        assert sum(row.human for row in rows) == sum(keys.count(key) for keys in batches)
    expected = {key: sum(keys.count(key) for keys in batches) for key in "abc"}
    assert top_of(book, "u").links == {key: clicks for key, clicks in expected.items() if clicks}


@pytest.mark.rule("A2")
def test_the_rows_of_a_record_are_judged_each_for_itself() -> None:
    """A crash came between the writes of two rows that one record had touched: only the other counts it again."""
    log = [arrival(0, click("a", user="u"), click("b", user="u"), click("a", user="u"))]
    before = image_of(fold(log), replace_key("a"))

    book = fold(log, {before.id: before})

    assert image_of(book, replace_key("a")).human == 2
    assert image_of(book, replace_key("b")).human == 1
    assert top_of(book, "u").links == {"a": 2, "b": 1}


def replace_key(key: str) -> RowId:
    """The row of that link at T0."""
    return ROW._replace(key=LinkKey(key))


@pytest.mark.rule("A2", "A8")
def test_a_later_epoch_counts_from_its_start() -> None:
    """In a log that was created anew a lower offset is news; what is left of the old one is not."""
    old = replace(image_of(fold([arrival(0, click())])), applied=Applied(1, 500))

    later = image_of(fold([arrival(0, click())], {old.id: old}, epoch=2))
    again = image_of(fold([arrival(0, click())], {later.id: later}, epoch=1))

    assert (later.human, later.applied) == (2, Applied(2, 0))
    assert again == later


def test_unique_visitors_are_close() -> None:
    """The sketch tells 20 000 visitors to within 10 %, in less than a kilobyte, after any number of reloads."""
    row = Row(ROW)
    for number in range(20_000):
        if number % 1000 == 0:
            row = Row.of(row.image())
        row.add_human(f"visitor {number}".encode(), ())
        row.add_human(f"visitor {number // 2}".encode(), ())

    visitors = Visitors()
    visitors.add(row.image().visitors)

    assert abs(visitors.estimate() - 20_000) < 2_000
    assert len(row.image().visitors) < 1000


def test_a_row_without_visitors_can_be_merged() -> None:
    """Bots leave no sketch of their own, but what stands for none is one, too."""
    image = image_of(fold([arrival(0, click(visitor_class=BOT))]))
    visitors = Visitors()

    visitors.add(image.visitors)

    assert visitors.estimate() == 0
    assert Row.of(image).image() == image


@pytest.mark.rule("A5")
def test_a_replayed_record_counts_in_its_own_hour() -> None:
    """A click that is replayed a week later is counted when it was made, not when it was replayed [A9]."""
    late = arrival(9, click(), stored_ms=T0_MS + 7 * DAY_MS, origin=Origin(3, T0_MS + 5))

    assert image_of(fold([late])).human == 1


def test_top_links_are_those_of_people_and_bots() -> None:
    """An account's clicks by link, prefetches and links of nobody left out; a day has a row for each partition."""
    book = fold(
        [
            arrival(0, click("a", user="u"), click("b", user="u"), click("a", user="u", visitor_class=BOT)),
            arrival(1, click("a", user="u", visitor_class=PREFETCH), click("c", user="v"), click("d")),
        ]
    )

    assert top_of(book, "u") == TopImage(TopId(0, UserId("u"), Day(T0_MS // DAY_MS)), Applied(1, 0), {"a": 2, "b": 1})
    assert top_of(book, "v").links == {"c": 1}
    assert book.dirty == 6  # four links, two accounts
    assert book.read_tops(UserId("u"), 1, range(99_999)) == []


@pytest.mark.rule("A5", "A6")
@given(st.integers(0, 2000), st.integers(1, 300))
def test_a_row_stored_and_loaded_goes_on_as_if_it_had_not_been(cut: int, step: int) -> None:
    """What a bounded list of top links keeps depends on its clicks alone, and its sum is exact; it stays small."""
    keys = [f"k{number * number % (1 + number // step)}" for number in range(2000)]
    straight, reloaded = TopRow(TopId(0, UserId("u"), Day(1))), TopRow(TopId(0, UserId("u"), Day(1)))
    for number, key in enumerate(keys):
        if number == cut:
            reloaded = TopRow.of(reloaded.image())
        straight.add(LinkKey(key))
        reloaded.add(LinkKey(key))

    links = straight.image().links
    assert reloaded.image().links == links
    assert sum(links.values()) == 2000
    assert len(links) <= 401
    if len(links) < len(set(keys)):
        assert links[REST] > 0
