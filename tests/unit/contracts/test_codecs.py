"""What is written can be read: links and events as protobuf and as rows."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from contracts.link import EventId, EventType, FieldChange, Link, LinkEvent, LinkState, UserId
from contracts.link_codec import (
    UndecodableError,
    decode_event,
    encode_event,
    event_type_name,
    link_from_message,
    link_to_message,
)
from contracts.link_rows import (
    Reservation,
    event_from_row,
    event_to_row,
    link_from_row,
    link_to_row,
    reservation_from_row,
    reservation_to_row,
)
from contracts.topics import TOPICS, partitions_needed
from shortener.events.v1 import link_events_pb2 as events_pb
from shortener.link.v1 import link_pb2
from tests.fakes.link_events import event_of, make_link

moments = st.datetimes(timezones=st.just(UTC))
maybe_moments = st.none() | moments
texts = st.text(st.characters(codec="utf-8"), max_size=40)
links = st.builds(
    Link,
    short_code=st.text("abcXYZ019-_", min_size=3, max_size=64),
    domain=st.sampled_from(["", "go.example.org"]),
    long_url=texts.map(lambda text: "https://example.org/" + text),
    user_id=texts.map(lambda text: UserId("u" + text)),
    version=st.integers(1, 2**62),
    event_id=st.uuids().map(lambda value: EventId(str(value))),
    created_at=moments,
    updated_at=moments,
    is_custom=st.booleans(),
    state=st.sampled_from(LinkState),
    deleted_at=maybe_moments,
    expires_at=maybe_moments,
    starts_at=maybe_moments,
    redirect_status=st.sampled_from([301, 302, 307, 308]),
    title=texts,
    tags=st.lists(texts, max_size=16).map(tuple),
    restores_to=st.sampled_from(LinkState),
)
MESSAGES: dict[EventType, type[Message]] = {
    EventType.CREATED: events_pb.LinkCreated,
    EventType.UPDATED: events_pb.LinkUpdated,
    EventType.DELETED: events_pb.LinkDeleted,
    EventType.RESTORED: events_pb.LinkRestored,
}
changes = st.lists(st.builds(FieldChange, texts, texts, texts), max_size=3).map(tuple)


@given(link=links)
def test_a_link_survives_protobuf_and_the_table(link: Link) -> None:
    """Nothing is lost on the wire or in a row."""
    assert link_from_message(link_to_message(link)) == link
    assert link_from_row(link_to_row(link)) == link


@given(link=links, kind=st.sampled_from(EventType), made=changes, at=moments)
def test_an_event_survives_the_topic_and_the_table(
    link: Link, kind: EventType, made: tuple[FieldChange, ...], at: datetime
) -> None:
    """The event of a record and of a row is the event that was sent."""
    event = LinkEvent(
        type=kind,
        event_id=link.event_id,
        version=link.version,
        at=at,
        user_id=link.user_id,
        link=link,
        changes=() if kind is EventType.CREATED else made,
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )

    data = encode_event(event)

    assert decode_event(event_type_name(kind), data) == event
    assert MESSAGES[kind].FromString(data).SerializeToString(deterministic=True) == data  # as the library writes it
    assert event_from_row(event_to_row(event, data)) == event


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_event_or_undecodable(data: bytes) -> None:
    """No bytes make the decoder fail in another way."""
    with suppress(UndecodableError):
        decode_event("shortener.events.v1.LinkUpdated", data)


@pytest.mark.parametrize("type_name", ["", "shortener.events.v1.LinkMoved", "LinkCreated"])
def test_an_unknown_type_is_undecodable(type_name: str) -> None:
    """A newer producer's event is not guessed at."""
    with pytest.raises(UndecodableError):
        decode_event(type_name, encode_event(event_of(make_link("abc"))))


def test_a_link_needs_code_version_and_state() -> None:
    """An empty message is no link."""
    with pytest.raises(UndecodableError):
        link_from_message(link_pb2.Link())


@pytest.mark.rule("K2")
def test_a_reservation_is_no_link_and_a_link_no_reservation() -> None:
    """Both stand in the META row; each reader sees its own."""
    link = make_link("my-code")
    reservation = Reservation(
        key=link.key, user_id=link.user_id, event_id=link.event_id, at=link.created_at, redis_run_id="run"
    )

    assert reservation_from_row(reservation_to_row(reservation)) == reservation
    assert link_from_row(reservation_to_row(reservation)) is None
    assert reservation_from_row(link_to_row(link)) is None


@pytest.mark.parametrize(
    ("rps", "consumers", "partitions"), [(0, 1, 1), (1000, 1, 1), (1001, 1, 2), (500, 12, 12), (25_000, 3, 25)]
)
def test_the_partition_formula(rps: float, consumers: int, partitions: int) -> None:
    """max(expected_rps / 1000, consumers), rounded up."""
    assert partitions_needed(expected_rps=rps, consumers=consumers) == partitions


def test_a_negative_load_is_refused() -> None:
    """There is no such thing."""
    with pytest.raises(ValueError, match="negative"):
        partitions_needed(expected_rps=-1, consumers=1)


def test_topics_have_unique_names_and_their_dead_letters_live_as_long() -> None:
    """A dead letter must not age out before its original."""
    by_name = {topic.name: topic for topic in TOPICS}

    assert len(by_name) == len(TOPICS)
    for topic in TOPICS:
        if (dead := by_name.get(f"{topic.name}-dlq")) is not None:
            assert dead.retention_ms >= topic.retention_ms
