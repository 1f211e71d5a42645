"""Links and events for tests: valid unless told otherwise."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from chassis.clock import uuid7
from chassis.kafka.record import Record
from contracts.link import EventId, EventType, Link, LinkEvent, LinkState, UserId
from contracts.link_codec import encode_event, event_type_name

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def make_link(short_code: str, *, version: int = 1, user_id: str = "ada", state: LinkState = LinkState.ACTIVE) -> Link:
    """A link of that version; a second passes between versions."""
    at = START + timedelta(seconds=version)
    return Link(
        short_code=short_code,
        long_url=f"https://example.org/{version}",
        user_id=UserId(user_id),
        version=version,
        event_id=EventId(uuid7(at)),
        created_at=START,
        updated_at=at,
        deleted_at=at if state is LinkState.DELETED else None,
        state=state,
        tags=("a", "b"),
        title="A title",
    )


def event_of(link: Link, kind: EventType | None = None) -> LinkEvent:
    """The event that made a version of a link."""
    if kind is None:
        kind = EventType.CREATED if link.version == 1 else EventType.UPDATED
        kind = EventType.DELETED if link.state is LinkState.DELETED else kind
    return LinkEvent(
        type=kind, event_id=link.event_id, version=link.version, at=link.updated_at, user_id=link.user_id, link=link
    )


def record_of(event: LinkEvent, *, partition: int = 0, offset: int = 0) -> Record:
    """The record of links-events that carries an event."""
    return Record(
        topic="links-events",
        partition=partition,
        offset=offset,
        timestamp_ms=int(event.at.timestamp() * 1000),
        key=event.link.key.encode(),
        value=encode_event(event),
        headers=(("ce_type", event_type_name(event.type).encode()), ("ce_id", event.event_id.encode())),
    )


def another_event(link: Link) -> Link:
    """The same version of the same link, made by another event."""
    return replace(link, event_id=EventId(uuid7(link.updated_at)), long_url="https://example.org/other")
