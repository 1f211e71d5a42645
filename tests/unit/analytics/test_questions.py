"""What a request asks for, and what is said of one that makes no sense."""

import asyncio
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from analytics.domain.clicks import HOUR_MS
from analytics.domain.labels import Dimension
from analytics.domain.stats import Granularity
from analytics.handlers.questions import dimension_of, find_own, granularity_of, hours_of, page_of, zone_of
from chassis.auth import Principal
from chassis.errors import InvalidArgument, NotFound
from contracts.link_codec import timestamp
from shortener.analytics.v1 import analytics_service_pb2 as pb
from tests.fakes.analytics_clicks import T0_MS
from tests.fakes.analytics_ports import FakeLinks
from tests.fakes.kafka_time import START

HOURS = range(T0_MS // HOUR_MS, T0_MS // HOUR_MS + 48)
ALICE = Principal("alice", frozenset())


@pytest.mark.parametrize("name", ["", "UTC"])
def test_days_are_those_of_utc_unless_said_otherwise(name: str) -> None:
    """No zone is looked up."""
    assert zone_of(pb.GetClickStatsRequest(time_zone=name), Granularity.DAY, HOURS) is UTC


@pytest.mark.parametrize(
    ("name", "granularity", "good"),
    [
        ("Europe/Berlin", Granularity.DAY, True),
        ("Asia/Kolkata", Granularity.HOUR, True),  # hours are those of UTC anyway
        ("Asia/Kolkata", Granularity.DAY, False),
        ("Nowhere/Land", Granularity.DAY, False),
        ("Nowhere/Land", Granularity.HOUR, False),
        ("Europe", Granularity.DAY, False),  # a folder of them
        ("../../etc/passwd", Granularity.DAY, False),
        ("/etc/passwd", Granularity.DAY, False),
        ("Europe/Berlin\0", Granularity.DAY, False),
        ("x" * 65, Granularity.DAY, False),
    ],
)
def test_a_zone_is_a_name_that_is_known(name: str, granularity: Granularity, good: bool) -> None:
    """Anything else is told as a fault of the field, and opens no file outside of the zones."""
    request = pb.GetClickStatsRequest(time_zone=name)
    if good:
        assert zone_of(request, granularity, HOURS) == ZoneInfo(name)
        return
    with pytest.raises(InvalidArgument) as told:
        zone_of(request, granularity, HOURS)
    assert [item.field for item in told.value.fields] == ["time_zone"]


def test_steps_and_groups_have_names() -> None:
    """A number that stands for nothing is told, not taken for another."""
    request = pb.GetClickStatsRequest()
    assert (granularity_of(request), dimension_of(request)) == (Granularity.DAY, None)
    request = pb.GetClickStatsRequest(granularity=pb.GRANULARITY_HOUR, group_by=pb.GROUP_BY_OS)
    assert (granularity_of(request), dimension_of(request)) == (Granularity.HOUR, Dimension.OS)
    for ask in (granularity_of, dimension_of):
        with pytest.raises(InvalidArgument):
            ask(pb.GetClickStatsRequest(granularity=9, group_by=9))  # type: ignore[arg-type]  # of a newer caller
    assert len({dimension_of(pb.GetClickStatsRequest(group_by=name)) for name in pb.GroupBy.values()}) == 6


def test_ranges_are_those_of_both_questions() -> None:
    """A link's counts and an account's list go by the same bounds."""
    now_ms = int(START.timestamp() * 1000)
    for request in (pb.GetClickStatsRequest(until=timestamp(START)), pb.ListTopLinksRequest(until=timestamp(START))):
        getattr(request, "from").CopyFrom(timestamp(START))
        with pytest.raises(InvalidArgument):
            hours_of(request, now_ms)
    assert len(hours_of(pb.ListTopLinksRequest(), now_ms)) == 30 * 24


@pytest.mark.parametrize(
    ("size", "token", "expected"),
    [
        (0, "", range(20)),
        (7, "", range(7)),
        (100, "40", range(40, 140)),
        (101, "", "page_size"),
        (-1, "", "page_size"),
        (1, "x", "page_token"),
        (1, "-1", "page_token"),
        (1, "٣", "page_token"),
        (1, "1" * 7, "page_token"),
    ],
)
def test_pages_of_top_links(size: int, token: str, expected: range | str) -> None:
    """Twenty unless said otherwise, at most a hundred; what is no token of ours is told."""
    request = pb.ListTopLinksRequest(page_size=size, page_token=token)
    if isinstance(expected, range):
        assert page_of(request) == expected
        return
    with pytest.raises(InvalidArgument) as told:
        page_of(request)
    assert [item.field for item in told.value.fields] == [expected]


def test_only_its_owner_is_told_of_a_link() -> None:
    """Somebody else's is as if there were none; what no code can be is not looked up."""
    links = FakeLinks()
    links.add("mine", "alice", T0_MS)
    links.add("theirs", "bob", T0_MS)

    assert asyncio.run(find_own(links, "mine", "", ALICE)).created_ms == T0_MS
    messages = set()
    for code in ("theirs", "nobodys", "no/code", ""):
        with pytest.raises(NotFound) as told:
            asyncio.run(find_own(links, code, "", ALICE))
        messages.add(told.value.reason)
    assert messages == {"link_not_found"}


def test_moments_at_the_end_of_time_are_told() -> None:
    """A range whose last hours are in the year 10000 of a zone, and numbers that are no moment, are the asker's."""
    request = pb.GetClickStatsRequest(time_zone="Asia/Tokyo", until=Timestamp(seconds=253_402_300_799))
    hours = hours_of(request, T0_MS)
    with pytest.raises(InvalidArgument) as refused:
        zone_of(request, Granularity.DAY, hours)
    assert refused.value.fields[0].field == "until"
    assert zone_of(request, Granularity.HOUR, hours) is not None

    for seconds, nanos in ((10**18, 0), (-(10**18), 0), (0, -5)):
        with pytest.raises(InvalidArgument) as refused:
            hours_of(pb.ListTopLinksRequest(until=Timestamp(seconds=seconds, nanos=nanos)), T0_MS)
        assert refused.value.fields[0].field == "until"
