"""Rows into an answer: the right hours, the newer version of each row, totals and steps."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from analytics.domain.clicks import HOUR_MS, Hour, RowId
from analytics.domain.labels import Dimension
from analytics.domain.rows import Applied, Row, RowImage
from analytics.domain.schedule import Schedule
from analytics.domain.stats import (
    BadRange,
    Granularity,
    Group,
    decide_hours,
    decide_zone,
    groups,
    merge,
    possible_hours,
    summarise,
)
from analytics.domain.tallies import REST
from contracts.link import LinkKey
from tests.fakes.analytics_clicks import T0_MS

NOW_MS = T0_MS + HOUR_MS // 2
T0 = T0_MS // HOUR_MS  # midnight
DAYS = 24 * HOUR_MS


def row(hour: int, *visitors: str, partition: int = 0, labels: tuple[str, ...] = ()) -> RowImage:
    """A row with a click of each of these people."""
    made = Row(RowId(LinkKey("k"), Hour(hour), partition))
    for offset, visitor in enumerate(visitors):
        made.applied = Applied(1, offset)
        made.add_human(visitor.encode(), labels)
    return made.image()


def sorted_rows(rows: Sequence[RowImage]) -> list[RowImage]:
    """Oldest hour first."""
    return sorted(rows, key=lambda found: found.id)


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

    assert sorted_rows(merge([new], [old, other_hour])) == [new, other_hour]
    assert merge([old], [new]) == [new]
    assert merge([new], [new]) == [new]
    assert sorted_rows(merge([], [other_hour, other_partition, old])) == [old, other_partition, other_hour]


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


def hour_at(text: str) -> int:
    """The hour since 1970 that begins at this time."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) // 3600


@pytest.mark.parametrize(
    ("zone", "hours", "starts"),
    [
        # Berlin: a day of 25 hours when the clock goes back, one of 23 when it goes on.
        ("Europe/Berlin", ["2026-10-24T22:00Z", "2026-10-25T22:00Z", "2026-10-25T23:00Z"],
         ["2026-10-24T22:00Z", "2026-10-25T23:00Z"]),
        ("Europe/Berlin", ["2026-03-28T23:00Z", "2026-03-29T21:00Z", "2026-03-29T22:00Z"],
         ["2026-03-28T23:00Z", "2026-03-29T22:00Z"]),
        ("America/New_York", ["2026-06-02T03:00Z", "2026-06-02T04:00Z"], ["2026-06-01T04:00Z", "2026-06-02T04:00Z"]),
        # Havana: midnight comes twice when the clock goes back at one, and not at all when it goes on at midnight.
        ("America/Havana", ["2025-11-02T04:00Z", "2025-11-02T05:00Z", "2025-11-03T04:00Z"], ["2025-11-02T04:00Z"]),
        ("America/Havana", ["2025-03-09T04:00Z", "2025-03-09T05:00Z"], ["2025-03-08T05:00Z", "2025-03-09T05:00Z"]),
        ("Pacific/Kiritimati", ["2026-06-01T09:00Z", "2026-06-01T10:00Z"], ["2026-05-31T10:00Z", "2026-06-01T10:00Z"]),
    ],
)  # fmt: skip
def test_days_are_those_of_the_zone(zone: str, hours: list[str], starts: list[str]) -> None:
    """Each step begins with the zone's midnight, also where the clocks change; hours are everybody's."""
    rows = [row(hour_at(text), f"v{text}") for text in hours]

    by_day = summarise(rows, Granularity.DAY, ZoneInfo(zone))
    by_hour = summarise(rows, Granularity.HOUR, ZoneInfo(zone))

    assert [step.start for step in by_day.series] == [hour_at(text) for text in starts]
    assert sum(step.counts.clicks for step in by_day.series) == len(hours)
    assert [step.start for step in by_hour.series] == [hour_at(text) for text in hours]


@pytest.mark.parametrize(
    ("zone", "start", "good"),
    [
        ("Europe/Berlin", "2026-10-20T00:00Z", True),
        ("Asia/Kolkata", "2026-10-20T00:00Z", False),  # + 5:30
        ("Asia/Kathmandu", "2026-10-20T00:00Z", False),  # + 5:45
        ("Australia/Lord_Howe", "2026-12-20T00:00Z", True),  # + 11 in summer
        ("Australia/Lord_Howe", "2026-06-20T00:00Z", False),  # + 10:30 in winter
        ("Australia/Lord_Howe", "2026-04-01T00:00Z", False),  # changes on the 4th
        ("Etc/GMT-14", "2026-10-20T00:00Z", True),
    ],
)
def test_days_that_begin_within_an_hour_are_refused(zone: str, start: str, good: bool) -> None:
    """Counts are kept by UTC hours: half of one cannot be told."""
    first = hour_at(start)

    found = decide_zone(ZoneInfo(zone), range(first, first + 7 * 24))

    assert found is None if good else isinstance(found, BadRange)
    assert found is None or found.field == "time_zone"


def test_groups_are_all_of_peoples_clicks() -> None:
    """Most first; what has no value, or was counted before there were dimensions, is unknown; what had no room other;
    bots and prefetches are in none."""
    rows = [
        row(T0, "a", "b", "c", labels=("cDE", "rnews.example")),
        row(T0 + 1, "d", labels=("cAT", "r")),
        row(T0 + 2, "e", "f"),  # of before there were labels
        replace(row(T0 + 3, *"ghijklm", labels=("c" + REST, "rnews.example")), bot=50, prefetches=3),
    ]

    assert groups(rows, Dimension.COUNTRY) == [Group("other", 7), Group("DE", 3), Group("unknown", 2), Group("AT", 1)]
    assert groups(rows, Dimension.REFERRER) == [Group("news.example", 10), Group("unknown", 3)]
    assert groups(rows, Dimension.DEVICE) == [Group("unknown", 13)]
    assert groups([], Dimension.OS) == []


def test_a_value_that_is_called_like_one_of_our_words_is_no_second_one() -> None:
    """Anybody may say to come from http://other/: each value is there once, and the sum stays whole."""
    rows = [
        row(T0, "a", "b", labels=("rother",)),
        row(T0, "c", partition=1, labels=("r" + REST,)),
        row(T0 + 1, *"defg", labels=("runknown",)),
        row(T0 + 2, "h", labels=("r",)),
    ]

    assert groups(rows, Dimension.REFERRER) == [Group("unknown", 5), Group("other", 3)]


def test_an_answer_has_a_hundred_groups() -> None:
    """The others are told together, so that the sum stays whole."""
    rows = [row(T0 + number, "a", labels=(f"rhost-{number:03}.example",)) for number in range(150)]
    rows += [row(T0, "x", "y", partition=1, labels=("rhost-149.example",))]

    found = groups(rows, Dimension.REFERRER)

    assert len(found) == 101
    assert (found[0], found[1].clicks) == (Group("other", 50), 3)
    assert sum(each.clicks for each in found) == 152


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
