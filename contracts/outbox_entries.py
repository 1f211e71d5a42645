"""The entries of the outbox: what link_service leaves in Redis for the relay, one for each event [O1]. Pure."""

from datetime import datetime
from typing import NamedTuple

from google.protobuf.message import DecodeError

from contracts.link import EventId, LinkEvent, LinkKey
from contracts.link_codec import UndecodableError, encode_event, encode_header, event_type_name, moment
from contracts.wire import part, tag_of
from shortener.store.v1.cache_entry_pb2 import OutboxEntry as OutboxMessage

_OUTBOX_TYPE, _OUTBOX_EVENT = tag_of(OutboxMessage, "event_type"), tag_of(OutboxMessage, "event")
_OUTBOX_KEY, _OUTBOX_TRACEPARENT = tag_of(OutboxMessage, "link_key"), tag_of(OutboxMessage, "traceparent")
_OUTBOX_HEADER = tag_of(OutboxMessage, "header")


class OutboxEntry(NamedTuple):
    """One event on its way to Kafka: what the relay needs to make a record of it."""

    event_type: str  # full protobuf name, `ce_type`
    value: bytes  # the event as it travels
    key: LinkKey
    event_id: EventId
    at: datetime
    traceparent: str | None


def encode_outbox_entry(event: LinkEvent, traceparent: str | None, encoded: bytes | None = None) -> bytes:
    """The entry of an event in outbox:{bb}, under the field `e`. `encoded`: its link's message, if it is already."""
    header = encode_header(event)
    entry = part(_OUTBOX_TYPE, event_type_name(event.type).encode())
    entry += part(_OUTBOX_EVENT, encode_event(event, encoded, header))
    entry += part(_OUTBOX_KEY, event.link.key.encode())
    if traceparent:
        entry += part(_OUTBOX_TRACEPARENT, traceparent.encode())
    return entry + part(_OUTBOX_HEADER, header)


def decode_outbox_entry(data: bytes) -> OutboxEntry:
    """The event of an outbox entry.

    Raises:
        UndecodableError: the bytes are not such an entry.
    """
    try:
        message = OutboxMessage.FromString(data)
        at = moment(message.header.at)
    except (DecodeError, ValueError) as exc:
        raise UndecodableError("not an outbox entry") from exc
    if not (message.event_type and message.event and message.link_key and message.header.event_id):
        raise UndecodableError("an outbox entry needs a type, an event, a key and an event id")
    return OutboxEntry(
        event_type=message.event_type,
        value=message.event,
        key=LinkKey(message.link_key),
        event_id=EventId(message.header.event_id),
        at=at,
        traceparent=message.traceparent or None,
    )
