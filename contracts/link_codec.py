"""Links and link events between plain values and protobuf (`shortener.link.v1`, `shortener.events.v1`)."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.link import EventId, EventType, FieldChange, Link, LinkEvent, LinkState, UserId
from contracts.wire import part, tag_of
from shortener.events.v1 import link_events_pb2 as events_pb
from shortener.link.v1 import link_pb2, link_service_pb2

_EventMessage = events_pb.LinkCreated | events_pb.LinkUpdated | events_pb.LinkDeleted | events_pb.LinkRestored
STATES = {
    LinkState.ACTIVE: link_pb2.LINK_STATE_ACTIVE,
    LinkState.DELETED: link_pb2.LINK_STATE_DELETED,
    LinkState.EXPIRED: link_pb2.LINK_STATE_EXPIRED,
    LinkState.BLOCKED: link_pb2.LINK_STATE_BLOCKED,
}
_STATE_OF = {number: state for state, number in STATES.items()}
_MESSAGES: dict[EventType, type[_EventMessage]] = {
    EventType.CREATED: events_pb.LinkCreated,
    EventType.UPDATED: events_pb.LinkUpdated,
    EventType.DELETED: events_pb.LinkDeleted,
    EventType.RESTORED: events_pb.LinkRestored,
}
_NAMES = {kind: message.DESCRIPTOR.full_name for kind, message in _MESSAGES.items()}
# The same numbers in all of them, so that what is common is encoded alike.
_EVENT_HEADER, _EVENT_LINK = tag_of(events_pb.LinkUpdated, "header"), tag_of(events_pb.LinkUpdated, "link")
_MESSAGE_OF_NAME = {message.DESCRIPTOR.full_name: (kind, message) for kind, message in _MESSAGES.items()}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 1_000_000_000


class UndecodableError(ValueError):
    """Bytes that are not what their type says."""


def event_type_name(kind: EventType) -> str:
    """The full protobuf name of an event type: `ce_type` of its records."""
    return _NAMES[kind]


def event_type_of(name: str) -> EventType | None:
    """The event type of a `ce_type`; None for one this version does not know."""
    found = _MESSAGE_OF_NAME.get(name)
    return found[0] if found else None


def timestamp(moment: datetime) -> Timestamp:
    """An aware datetime as a protobuf timestamp (a fifth of what Timestamp.FromDatetime costs)."""
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


_shared_timestamp = lru_cache(maxsize=64)(timestamp)  # never changed: assigning it copies. A crowd has one time


def moment(message: Timestamp) -> datetime:
    """A protobuf timestamp as an aware UTC datetime, microseconds kept.

    Raises:
        UndecodableError: it is outside of the years 1 to 9999.
    """
    return _moment(message.seconds, message.nanos)


@lru_cache(maxsize=64)
def _moment(seconds: int, nanos: int) -> datetime:
    try:
        if not 0 <= nanos < _SECOND_NS:
            raise UndecodableError("a timestamp is not normal")
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as exc:
        raise UndecodableError("a timestamp is out of range") from exc


def link_to_message(link: Link) -> link_pb2.Link:
    """The protobuf message of a link."""
    message = link_pb2.Link(
        short_code=link.short_code,
        long_url=link.long_url,
        user_id=link.user_id,
        version=link.version,
        state=STATES[link.state],
        created_at=_shared_timestamp(link.created_at),
        updated_at=_shared_timestamp(link.updated_at),
        redirect_status=link.redirect_status,
        event_id=link.event_id,
    )
    if link.domain or link.is_custom or link.title or link.tags:  # what most have not costs nothing
        message.domain, message.is_custom, message.title = link.domain, link.is_custom, link.title
        message.tags.extend(link.tags)
    if link.restores_to is not LinkState.ACTIVE:
        message.restores_to = STATES[link.restores_to]
    for field in ("deleted_at", "expires_at", "starts_at"):
        value: datetime | None = getattr(link, field)
        if value is not None:
            getattr(message, field).CopyFrom(timestamp(value))
    return message


def link_from_message(message: link_pb2.Link) -> Link:
    """The link of a protobuf message.

    Raises:
        UndecodableError: code, version or state is missing or unknown.
    """
    state = _STATE_OF.get(message.state)
    restores_to = _STATE_OF.get(message.restores_to or link_pb2.LINK_STATE_ACTIVE)
    if not message.short_code or message.version < 1 or state is None or restores_to is None:
        raise UndecodableError("a link needs a code, a version and a known state")
    return Link(
        short_code=message.short_code,
        domain=message.domain,
        long_url=message.long_url,
        user_id=UserId(message.user_id),
        is_custom=message.is_custom,
        version=message.version,
        state=state,
        event_id=EventId(message.event_id),
        created_at=moment(message.created_at),
        updated_at=moment(message.updated_at),
        deleted_at=moment(message.deleted_at) if message.HasField("deleted_at") else None,
        expires_at=moment(message.expires_at) if message.HasField("expires_at") else None,
        starts_at=moment(message.starts_at) if message.HasField("starts_at") else None,
        redirect_status=message.redirect_status or 302,
        title=message.title,
        tags=tuple(message.tags),
        restores_to=restores_to,
    )


def encode_link(link: Link) -> bytes:
    """The bytes of a link's message."""
    return link_to_message(link).SerializeToString(deterministic=True)


def encode_header(event: LinkEvent) -> bytes:
    """The bytes of an event's header."""
    return events_pb.EventHeader(
        event_id=event.event_id,
        version=event.version,
        at=_shared_timestamp(event.at),
        user_id=event.user_id,
        trace_id=event.trace_id,
    ).SerializeToString(deterministic=True)


def encode_event(event: LinkEvent, link: bytes | None = None, header: bytes | None = None) -> bytes:
    """The bytes of an event, as they travel and are stored. `link`, `header`: its messages, if they are encoded."""
    data = part(_EVENT_HEADER, encode_header(event) if header is None else header)
    data += part(_EVENT_LINK, encode_link(event.link) if link is None else link)
    if not event.changes or event.type is EventType.CREATED:
        return data
    changes = [
        events_pb.FieldChange(field=change.field, old_value=change.old_value, new_value=change.new_value)
        for change in event.changes
    ]
    return data + events_pb.LinkUpdated(changes=changes).SerializeToString(deterministic=True)


def decode_event(type_name: str, data: bytes) -> LinkEvent:
    """The event of a record, from its `ce_type` and its value.

    Raises:
        UndecodableError: the type is unknown, or the bytes are not of that type.
    """
    found = _MESSAGE_OF_NAME.get(type_name)
    if found is None:
        raise UndecodableError(f"unknown event type {type_name!r}")
    kind, message_class = found
    try:
        message = message_class.FromString(data)
    except DecodeError as exc:
        raise UndecodableError("the value is not a protobuf of its type") from exc
    if not message.header.event_id or message.header.version < 1:
        raise UndecodableError("an event needs an id and a version")
    changes = () if isinstance(message, events_pb.LinkCreated) else tuple(message.changes)
    return LinkEvent(
        type=kind,
        event_id=EventId(message.header.event_id),
        version=message.header.version,
        at=moment(message.header.at),
        user_id=UserId(message.header.user_id),
        link=link_from_message(message.link),
        changes=tuple(FieldChange(change.field, change.old_value, change.new_value) for change in changes),
        trace_id=message.header.trace_id,
    )


def link_event_to_message(event: LinkEvent) -> link_service_pb2.LinkEvent:
    """An event as a link's history tells it."""
    return link_service_pb2.LinkEvent(
        event_id=event.event_id,
        event_type=event_type_name(event.type),
        version=event.version,
        at=timestamp(event.at),
        user_id=event.user_id,
        trace_id=event.trace_id,
        link=link_to_message(event.link),
        changes=changes_to_messages(event.changes),
    )


def changes_to_messages(changes: Iterable[FieldChange]) -> list[link_service_pb2.LinkFieldChange]:
    """Changes as link_service tells them."""
    return [
        link_service_pb2.LinkFieldChange(field=change.field, old_value=change.old_value, new_value=change.new_value)
        for change in changes
    ]


def changes_from_messages(messages: Iterable[link_service_pb2.LinkFieldChange]) -> tuple[FieldChange, ...]:
    """Changes that link_service told of."""
    return tuple(FieldChange(message.field, message.old_value, message.new_value) for message in messages)


def link_event_from_message(message: link_service_pb2.LinkEvent) -> LinkEvent:
    """The event of a link's history.

    Raises:
        UndecodableError: its type is unknown, or its link is none.
    """
    kind = event_type_of(message.event_type)
    if kind is None:
        raise UndecodableError(f"unknown event type {message.event_type!r}")
    return LinkEvent(
        type=kind,
        event_id=EventId(message.event_id),
        version=message.version,
        at=moment(message.at),
        user_id=UserId(message.user_id),
        link=link_from_message(message.link),
        changes=changes_from_messages(message.changes),
        trace_id=message.trace_id,
    )
