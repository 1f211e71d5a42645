"""Rows into an answer: the right hours, the newer version of each row, totals and steps."""

from dataclasses import replace

import pytest

from analytics.domain.clicks import HOUR_MS, Hour, RowId
from analytics.domain.rows import Applied, Row, RowImage
from analytics.domain.schedule import Schedule
from analytics.domain.stats import BadRange, Granularity, decide_hours, merge, possible_hours, summarise
from contracts.link import LinkKey
from tests.fakes.analytics_clicks import T0_MS, click

NOW_MS = T0_MS + HOUR_MS // 2
T0 = T0_MS // HOUR_MS  # midnight
DAYS = 24 * HOUR_MS


def row(hour: int, *visitors: str, partition: int = 0) -> RowImage:
    """A row with a click of each of these people."""
    made = Row(RowId(LinkKey("k"), Hour(hour), partition))
    for offset, visitor in enumerate(visitors):
        made.fold(click(visitor=visitor), Applied(1, offset))
    return made.image()


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "expected"),
    [
        (None, None, range(T0 + 1 - 30 * 24, T0 + 2)),
        (T0_MS, T0_MS + HOUR_MS, range(T0, T0 + 1)),
        (T0_MS + 1, T0_MS + HOUR_MS + 1, range(T0, T0 + 2)),
        (None, T0_MS, range(T0 - 30 * 24, T0)),
        (T0_MS - 92 * DAYS, T0_MS, range(T0 - 92 * 24, T0)),
    ],
)
def test_hours_of_a_range(from_ms: int | None, until_ms: int | None, expected: range) -> None:
    """Cut to the hour at both ends; by default 30 days until now."""
    assert decide_hours(from_ms=from_ms, until_ms=until_ms, now_ms=NOW_MS) == expected


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "field"),
    [
        (T0_MS - 92 * DAYS - 1, T0_MS, "from"),
        (T0_MS, T0_MS, "until"),
        (T0_MS + 1, T0_MS, "until"),
        (-1, T0_MS, "from"),
        (None, DAYS, "from"),
    ],
)
def test_bad_ranges_are_told(from_ms: int | None, until_ms: int, field: str) -> None:
    """More than 92 days, an end before the beginning, a time before 1970: the field at fault is named."""
    found = decide_hours(from_ms=from_ms, until_ms=until_ms, now_ms=NOW_MS)

    assert isinstance(found, BadRange)
    assert found.field == field


def test_only_possible_hours_are_read() -> None:
    """No day is read on which the link cannot have been clicked; a day's grace is for gateways' clocks."""
    wanted = range(T0 - 720, T0 + 720)

    assert possible_hours(wanted, created_ms=T0_MS, now_ms=NOW_MS) == range(T0 - 24, T0 + 2)
    assert possible_hours(wanted, created_ms=0, now_ms=NOW_MS) == range(T0 - 720, T0 + 2)
    assert not possible_hours(range(5, 9), created_ms=T0_MS, now_ms=NOW_MS)


@pytest.mark.rule("A7")
def test_versions_are_compared_never_added() -> None:
    """Of memory and table the one that holds more of the log counts, either way; other rows stand beside it."""
    old, new = row(T0, "a"), row(T0, "a", "b", "c")
    other_partition, other_hour = row(T0, "d", partition=1), row(T0 + 1, "e")

    assert merge([new], [old, other_hour]) == [new, other_hour]
    assert merge([old], [new]) == [new]
    assert merge([new], [new]) == [new]
    assert merge([], [other_hour, other_partition, old]) == [other_partition, old, other_hour]


@pytest.mark.rule("A7", "A8")
def test_a_later_epoch_is_newer_at_a_lower_offset() -> None:
    """After a topic was created anew offsets begin again; the epoch decides."""
    before = replace(row(T0, "a", "b"), applied=Applied(1, 900))
    after = replace(row(T0, "a", "b", "c"), applied=Applied(2, 3))

    assert merge([after], [before]) == [after]
    assert merge([before], [after]) == [after]


def test_steps_and_totals() -> None:
    """Visitors of several hours are united, not added; a prefetch is no click, and makes no step."""
    rows = [
        row(T0, "a", "b"),
        row(T0, "c", partition=1),
        replace(row(T0 + 5, "a"), bot=4, prefetches=2),
        replace(row(T0 + 30), prefetches=1),
    ]

    by_day = summarise(rows, Granularity.DAY)
    by_hour = summarise(rows, Granularity.HOUR)

    assert (by_day.total.human, by_day.total.bot, by_day.total.clicks) == (4, 4, 8)
    assert (by_day.total.prefetches, by_day.total.unique_visitors) == (3, 3)
    assert [(step.start, step.counts.clicks, step.counts.unique_visitors) for step in by_day.series] == [(T0, 8, 3)]
    assert [(step.start, step.counts.clicks, step.counts.unique_visitors) for step in by_hour.series] == [
        (T0, 3, 3),
        (T0 + 5, 5, 1),
    ]


def test_nothing_is_zero() -> None:
    """A link without clicks has zeros and no steps."""
    stats = summarise([], Granularity.DAY)

    assert (stats.total.clicks, stats.total.unique_visitors, stats.series) == (0, 0, [])


@pytest.mark.rule("A6")
def test_flushes_are_spread_over_the_interval() -> None:
    """Each of 20 partitions is due once per interval, no two seconds have more than three of them."""
    schedule = Schedule(60)
    rounds: dict[int, list[int]] = {partition: [] for partition in range(20)}
    for second in range(300):
        while (partition := schedule.due(rounds.keys(), second)) is not None:
            schedule.began(partition, second)
            rounds[partition].append(second)

    moments = [moment for found in rounds.values() for moment in found if moment < 240]
    assert all(3 <= len([moment for moment in found if moment < 240]) <= 4 for found in rounds.values())
    assert max(moments.count(moment) for moment in moments) <= 3


@pytest.mark.rule("A6")
def test_a_failed_flush_is_tried_again_soon() -> None:
    """A round that failed is due after a second; a partition that is gone is never due; one that comes back is new."""
    schedule = Schedule(60)
    for now in range(61):
        if schedule.due([4], now) is not None:
            schedule.began(4, now)
            schedule.failed(4, now, retry_s=1)
            assert schedule.due([4], now) is None
            assert schedule.due([4], now + 1) == 4
            break
    else:
        pytest.fail("never due")
    assert schedule.due([], now + 1) is None
    assert schedule.due([4], now + 1) is None
