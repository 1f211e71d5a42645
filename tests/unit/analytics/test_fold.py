"""A click and its row: when it counts, as what, and that it counts once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.domain.clicks import HOUR_MS, Hour, RowId, VisitorClass, counted_ms, row_of
from analytics.domain.rows import Applied, Row, Visitors
from analytics.domain.sequences import Spool, Verdict, judge
from analytics.handlers.decoding import decode_click
from contracts.link import LinkKey
from tests.fakes.analytics_clicks import SPOOL, T0_MS, click, message_of

DAY_MS = 24 * HOUR_MS
ROW = RowId(LinkKey("aB3dE7x"), Hour(T0_MS // HOUR_MS), 0)


@pytest.mark.rule("A5")
@pytest.mark.parametrize(
    ("at_ms", "expected_ms"),
    [
        (T0_MS, T0_MS),
        (T0_MS - DAY_MS, T0_MS - DAY_MS),
        (T0_MS - DAY_MS - 1, T0_MS - DAY_MS),
        (0, T0_MS - DAY_MS),
        (T0_MS + 5 * 60_000, T0_MS + 5 * 60_000),
        (T0_MS + 5 * 60_000 + 1, T0_MS + 5 * 60_000),
        (10 * T0_MS, T0_MS + 5 * 60_000),
    ],
)
def test_a_gateways_clock_is_trusted_within_bounds(at_ms: int, expected_ms: int) -> None:
    """A click counts when the gateway says, but at most a day before and five minutes after the broker stored it."""
    assert counted_ms(click(at_ms=at_ms), T0_MS) == expected_ms


@pytest.mark.rule("A5")
def test_the_row_is_of_the_clamped_hour() -> None:
    """The hour of a row is that of the time that counts, not of the time that was claimed."""
    assert row_of(click(at_ms=0), partition=4, stored_ms=T0_MS).hour == T0_MS // HOUR_MS - 24


@pytest.mark.rule("S7")
def test_classes_are_counted_apart() -> None:
    """People, bots and prefetches have a count each; only people are visitors."""
    row = Row(ROW)
    for offset, visitor_class in enumerate([*[VisitorClass.HUMAN] * 3, *[VisitorClass.BOT] * 2, VisitorClass.PREFETCH]):
        assert row.fold(click(visitor=str(offset), visitor_class=visitor_class), Applied(1, offset))

    image = row.image()

    assert (image.human, image.bot, image.prefetches) == (3, 2, 1)
    assert image.applied == Applied(1, 5)
    visitors = Visitors()
    visitors.add(image.visitors)
    assert visitors.estimate() == 3


@pytest.mark.rule("A2")
@given(st.lists(st.integers(0, 20), max_size=60), st.integers(0, 60))
def test_a_replay_changes_nothing(offsets: list[int], cut: int) -> None:
    """Whatever offsets come again, and wherever the row was stored and loaded, each new highest one counts once."""
    row = Row(ROW)
    for place, offset in enumerate(offsets):
        if place == cut:
            row = Row.of(row.image())
        row.fold(click(visitor=str(offset)), Applied(1, offset))

    highest = -1
    expected = 0
    for offset in offsets:
        expected += offset > highest
        highest = max(highest, offset)
    assert row.human == expected
    assert row.applied == (Applied(1, highest) if offsets else Applied(0, -1))


@pytest.mark.rule("A2", "A8")
def test_a_later_epoch_counts_from_its_start() -> None:
    """In a log that was created anew a lower offset is news; what is left of the old one is not."""
    row = Row(ROW)
    row.fold(click(), Applied(1, 500))

    assert row.fold(click(), Applied(2, 0))
    assert not row.fold(click(), Applied(1, 501))
    assert row.human == 2


def test_unique_visitors_are_close() -> None:
    """The sketch tells 20 000 visitors to within 10 %, in less than a kilobyte, after any number of reloads."""
    row = Row(ROW)
    for offset in range(20_000):
        if offset % 1000 == 0:
            row = Row.of(row.image())
        row.fold(click(visitor=f"visitor {offset}"), Applied(1, 2 * offset))
        row.fold(click(visitor=f"visitor {offset // 2}"), Applied(1, 2 * offset + 1))

    visitors = Visitors()
    visitors.add(row.image().visitors)

    assert abs(visitors.estimate() - 20_000) < 2_000
    assert len(row.image().visitors) < 1000


@pytest.mark.rule("S4", "S5")
@pytest.mark.parametrize(
    ("last", "sequence", "age_ms", "expected"),
    [
        (None, 1, 0, Verdict.NEW),
        (None, 2, 0, Verdict.GAP),
        (7, 8, 0, Verdict.NEW),
        (7, 7, 0, Verdict.REPEAT),
        (7, 1, 0, Verdict.REPEAT),
        (7, 9, 0, Verdict.GAP),
        (7, 8, 7 * DAY_MS, Verdict.NEW),
        (7, 8, 7 * DAY_MS + 1, Verdict.STALE),
    ],
)
def test_sequences_tell_repeats_from_news(last: int | None, sequence: int, age_ms: int, expected: Verdict) -> None:
    """At or below the last: sent again. One above: new. Beyond: a gap. A spool of more than 7 days is not known."""
    known = {} if last is None else {SPOOL + "1": Spool(last, last)}

    assert judge(known, SPOOL + "1", sequence, stored_ms=T0_MS + age_ms) is expected


def test_a_click_is_decoded() -> None:
    """What the gateway wrote is what is counted; a class that is not known is a person."""
    made = click("go.example.com/x", visitor="w", visitor_class=VisitorClass.BOT, spool_id=SPOOL + "1", sequence=3)
    message = message_of(made)

    assert decode_click(message.SerializeToString()) == made
    message.visitor_class = 99  # type: ignore[assignment]  # of a newer gateway
    decoded = decode_click(message.SerializeToString())
    assert decoded is not None
    assert decoded.visitor_class is VisitorClass.HUMAN


@pytest.mark.rule("C1")
@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xff\xff",
        b"",
        message_of(click(key="")).SerializeToString(),
        message_of(click(spool_id="no-uuid", sequence=1)).SerializeToString(),
        message_of(click(spool_id=SPOOL + "1", sequence=0)).SerializeToString(),
    ],
    ids=["garbage", "empty", "no key", "bad spool", "no sequence"],
)
def test_what_is_no_click_is_told(value: bytes) -> None:
    """Bytes that are no click, or say what cannot be, are not counted and do not stop the partition."""
    assert decode_click(value) is None
