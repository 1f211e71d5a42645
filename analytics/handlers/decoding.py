"""Records of clicks as the domain knows them."""

from collections.abc import Mapping
from enum import Enum

from google.protobuf.message import DecodeError

from analytics.domain.clicks import Arrival, Click, VisitorClass
from analytics.domain.sequences import is_forgotten
from chassis.kafka.record import Record
from contracts.link import LinkKey
from contracts.topics import ANALYTICS_EVENTS
from shortener.events.v1 import click_events_pb2 as events_pb

_TYPE = ANALYTICS_EVENTS.event_types[0]
_KEY_BYTES_MAX = 512  # a table's partition key may have 2048; a longer one would be refused for ever, at every start
_CLASSES: Mapping[int, VisitorClass] = {
    events_pb.VISITOR_CLASS_BOT: VisitorClass.BOT,
    events_pb.VISITOR_CLASS_PREFETCH: VisitorClass.PREFETCH,
}  # everything else is human, also what a newer gateway calls by a name we do not know


class Skip(Enum):
    """Why a record is not counted; the value is the word in metrics."""

    OTHER_TYPE = "other_type"  # an event that a newer gateway sends
    UNDECODABLE = "undecodable"


def decode(record: Record) -> tuple[Click | None, Skip | None]:
    """The click that a record is, or why it is none."""
    if record.header("ce_type") != _TYPE:
        return None, Skip.OTHER_TYPE
    click = decode_click(record.value)
    return click, None if click else Skip.UNDECODABLE


def arrival_of(record: Record, click: Click | None) -> Arrival:
    """Where and when a record came in."""
    return Arrival(record.partition, record.offset, record.timestamp_ms, click)


def decode_click(value: bytes) -> Click | None:
    """The click of a LinkAccessed; None if the bytes are none, or say what cannot be."""
    try:
        message = events_pb.LinkAccessed.FromString(value)
        at_ms = message.at.ToMilliseconds()
        if message.spool_id:
            is_forgotten(message.spool_id, now_ms=at_ms)  # raises if it is no id
    except (DecodeError, ValueError):
        return None
    if not 0 < len(message.link_key.encode()) <= _KEY_BYTES_MAX or (message.spool_id and message.sequence < 1):
        return None
    return Click(
        key=LinkKey(message.link_key),
        at_ms=at_ms,
        visitor=message.visitor,
        visitor_class=_CLASSES.get(message.visitor_class, VisitorClass.HUMAN),
        spool_id=message.spool_id,
        sequence=message.sequence,
    )
