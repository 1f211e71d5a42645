"""The writer on fakes: every order, every crash, the same rows."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import Unavailable
from chassis.kafka.record import Done, Outcome, Record, Rejected
from contracts.link import EventId, Link, LinkEvent, LinkKey, LinkState
from contracts.link_codec import encode_event
from tests.fakes.link_events import another_event, event_of, make_link, record_of
from tests.fakes.writer_link_table import FakeLinkTable, FakePersistedMarker
from writer.domain import Result
from writer.handlers import EventWriter
from writer.ports import StoredEvent


def write(table: FakeLinkTable, marker: FakePersistedMarker, records: Sequence[Record]) -> list[Outcome]:
    """Runs one batch."""
    return asyncio.run(EventWriter(table, marker)(records))


def records_of(links: Sequence[Link]) -> list[Record]:
    """One record a link."""
    return [record_of(event_of(link), offset=offset) for offset, link in enumerate(links)]


@pytest.mark.rule("W1", "W2", "R4")
def test_an_event_becomes_an_event_row_then_a_projection_then_a_mark() -> None:
    """Event row first, projection second, then Redis is told."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    link = make_link("abc")

    outcomes = write(table, marker, records_of([link]))

    assert outcomes == [Done()]
    assert list(table.events) == [(link.key, 1)]
    assert table.links == {link.key: link}
    assert marker.marked == [(link.key, 1)]


@pytest.mark.rule("W1")
def test_a_repeated_event_is_finished_and_marked_again() -> None:
    """A duplicate goes on with projection and mark: its first delivery may have died between the two."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    link = make_link("abc")
    write(table, marker, records_of([link]))
    table.links.clear()  # as if the first delivery had died before the projection

    outcomes = write(table, marker, records_of([link]))

    assert outcomes == [Done()]
    assert table.links == {link.key: link}
    assert marker.marked == [(link.key, 1), (link.key, 1)]


@pytest.mark.rule("W1", "C1")
def test_another_event_of_the_same_version_is_a_conflict_and_changes_nothing() -> None:
    """The row is the arbiter: the second event is rejected for good and is neither projected nor marked."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    link = make_link("abc")
    write(table, marker, records_of([link]))

    outcomes = write(table, marker, records_of([another_event(link), make_link("def")]))

    assert outcomes == [Rejected("conflict", "another event has this version"), Done()]
    assert table.links[link.key] == link
    assert (link.key, 1) in marker.marked
    assert len(marker.marked) == 2


@pytest.mark.rule("W2")
def test_a_reservation_is_taken_over_by_the_first_version() -> None:
    """A RESERVED row has no version, so the projection of version 1 replaces it."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    link = make_link("my-code")
    table.reserve(link.key)

    write(table, marker, records_of([link]))

    assert table.links == {link.key: link}


@pytest.mark.rule("W2")
def test_a_later_version_without_a_row_is_inserted() -> None:
    """Version 2 whose predecessor's projection is missing finds no row to update and puts one."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    link = make_link("abc", version=2)

    write(table, marker, records_of([link]))

    assert table.links == {link.key: link}


@pytest.mark.rule("C1")
@pytest.mark.parametrize(
    ("key", "type_name", "value", "reason"),
    [
        (b"abc", b"shortener.events.v1.LinkCreated", b"\xff\xff", "undecodable"),
        (b"abc", b"shortener.events.v1.LinkCreated", b"", "undecodable"),
        (b"abc", b"shortener.events.v1.Unknown", b"", "undecodable"),
        (b"other", b"shortener.events.v1.LinkCreated", encode_event(event_of(make_link("abc"))), "validation"),
    ],
)
def test_content_at_fault_is_rejected_at_once_and_its_neighbours_are_written(
    key: bytes, type_name: bytes, value: bytes, reason: str
) -> None:
    """Undecodable bytes, unknown types and records under a wrong key go to the dead letters without a retry."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    record = Record("links-events", 0, 0, 0, key, value, (("ce_type", type_name),))

    outcomes = write(table, marker, [record, *records_of([make_link("def")])])

    assert isinstance(outcomes[0], Rejected)
    assert (outcomes[0].reason, outcomes[0].retry) == (reason, False)
    assert outcomes[1] == Done()


@pytest.mark.rule("C1", "W1")
@pytest.mark.parametrize(
    "event",
    [
        replace(event_of(make_link("abc")), event_id=another_event(make_link("abc")).event_id),
        event_of(replace(make_link("abc"), event_id=EventId("no-uuid"))),
    ],
    ids=["event and link name two events", "the event id is none"],
)
def test_an_event_without_one_good_id_is_rejected_before_anything_is_written(event: LinkEvent) -> None:
    """Verdicts go by the event id, and Redis keeps it: two of them, or one that is no UUID, would lose the verdict."""
    table, marker = FakeLinkTable(), FakePersistedMarker()

    outcomes = write(table, marker, [record_of(event)])

    assert isinstance(outcomes[0], Rejected)
    assert (outcomes[0].reason, outcomes[0].retry) == ("validation", False)
    assert not table.events
    assert not table.links
    assert not marker.marked


@pytest.mark.rule("C1", "W1", "W2")
@pytest.mark.parametrize("items_before_the_fault", range(5))
def test_a_database_that_goes_away_is_nobodys_fault_and_redelivery_repairs(items_before_the_fault: int) -> None:
    """Wherever the database goes away, the batch raises, and the same batch again leaves the right rows."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    links = [make_link("abc", version=2), make_link("def")]
    table.fail_after = items_before_the_fault

    with pytest.raises(Unavailable):
        write(table, marker, records_of(links))
    table.fail_after = None
    outcomes = write(table, marker, records_of(links))

    assert outcomes == [Done(), Done()]
    assert table.links == {link.key: link for link in links}


@pytest.mark.rule("R4", "C1")
def test_nothing_is_finished_until_redis_was_told() -> None:
    """With Redis away the batch raises, so that no offset is committed before the entry has its expiry."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    marker.away = True

    with pytest.raises(Unavailable):
        write(table, marker, records_of([make_link("abc")]))


@pytest.mark.rule("W1", "W2", "O2")
@given(order=st.lists(st.integers(1, 4), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_first_occurrences_in_order_with_any_late_duplicates_leave_the_newest_version(order: list[int]) -> None:
    """A paused relay may send old events again; the projection never moves back and every version is kept."""
    table, marker = FakeLinkTable(), FakePersistedMarker()
    versions = {
        version: make_link("abc", version=version, state=LinkState.DELETED if version == 4 else LinkState.ACTIVE)
        for version in range(1, 5)
    }
    seen = 0
    for wanted in order:
        version = min(wanted, seen + 1)  # a first occurrence never comes before its predecessor's
        seen = max(seen, version)
        assert write(table, marker, records_of([versions[version]])) == [Done()]

    assert table.links[LinkKey("abc")] == versions[seen]
    assert sorted(version for _, version in table.events) == list(range(1, seen + 1))


class RefusingTable(FakeLinkTable):
    """A table that will never take the content of one link: either its event row, or its projection alone."""

    def __init__(self, *, events: bool) -> None:
        super().__init__()
        self.refuses_events = events

    async def insert_events(self, events: Sequence[StoredEvent]) -> list[Result]:
        """INVALID for the link `bad`."""
        results = await super().insert_events(events)
        bad = [self.refuses_events and item.event.link.short_code == "bad" for item in events]
        return [Result.INVALID if is_bad else result for is_bad, result in zip(bad, results, strict=True)]

    async def insert_links(self, links: Sequence[Link]) -> list[Result]:
        """INVALID for the link `bad`."""
        results = await super().insert_links(links)
        return [
            Result.INVALID if link.short_code == "bad" and not self.refuses_events else result
            for link, result in zip(links, results, strict=True)
        ]


@pytest.mark.rule("C1", "W4")
@pytest.mark.parametrize("events", [True, False], ids=["the event row", "the projection"])
def test_what_the_table_will_never_take_is_rejected_and_not_marked(events: bool) -> None:
    """A refusal for good is a verdict on that record alone: told, never counted as done, never told to Redis."""
    table, marker = RefusingTable(events=events), FakePersistedMarker()
    good = make_link("good")

    outcomes = write(table, marker, records_of([make_link("bad"), good]))

    assert isinstance(outcomes[0], Rejected)
    assert (outcomes[0].reason, outcomes[0].retry) == ("validation", False)
    assert outcomes[1] == Done()
    assert marker.marked == [(good.key, 1)]
