"""Records of clicks as the domain knows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from google.protobuf.message import DecodeError

from analytics.domain.clicks import Arrival, Buried, Click, Clicks, Origin, Totals, VisitorClass
from analytics.domain.labels import labels_of
from chassis.kafka.codec import REPLAY_FOR, REPLAY_OF
from chassis.kafka.record import Record
from shortener.events.v1 import click_events_pb2 as events_pb
from shortener.store.v1.click_counts_pb2 import SealedClicks

_CLICK = events_pb.LinkAccessed.DESCRIPTOR.full_name
_CLICKS = events_pb.LinksAccessed.DESCRIPTOR.full_name
_TOTALS = events_pb.SpoolTotals.DESCRIPTOR.full_name
_NAME_BYTES_MAX = 480  # an item may have 400 KB, and a row of top links has 400 of these; others are refused for ever
_YEAR_10000_S = 253_402_300_800  # what a Timestamp may say ends here
_CLASSES: Mapping[int, VisitorClass] = {
    events_pb.VISITOR_CLASS_UNSPECIFIED: VisitorClass.HUMAN,
    events_pb.VISITOR_CLASS_HUMAN: VisitorClass.HUMAN,
    events_pb.VISITOR_CLASS_BOT: VisitorClass.BOT,
    events_pb.VISITOR_CLASS_PREFETCH: VisitorClass.PREFETCH,
}  # what a newer gateway calls by a name we do not know is human
_new_click = tuple.__new__  # what the constructor of a named tuple calls, at a third of its price


class Skip(Enum):
    """Why a record is not counted; the value is the word in metrics."""

    OTHER_TYPE = "other_type"  # an event that a newer gateway sends
    OTHER_GROUP = "other_group"  # a dead letter that was replayed for another group
    UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record, what it says, and why it is not counted."""

    record: Record
    arrival: Arrival
    skip: Skip | None = None


def decode(record: Record, group: str) -> Decoded:
    """What a record says. One of which anything is not what it should be is undecodable as a whole: it is buried whole,
    and replayed whole [A9]. Its clicks' sequences are taken as arrived if they can be told, so that they are no gap.
    """
    meant_for = record.header(REPLAY_FOR)
    if meant_for is not None and meant_for != group:
        return Decoded(record, _arrival(record, None), Skip.OTHER_GROUP)
    try:
        match record.header("ce_type"):
            case kind if kind == _CLICKS:
                content: Clicks | Totals = _clicks(record.value)
            case kind if kind == _CLICK:
                content = _click_alone(record.value)
            case kind if kind == _TOTALS:
                content = _totals(record)
            case _:
                return Decoded(record, _arrival(record, None), Skip.OTHER_TYPE)
        return Decoded(record, _arrival(record, content, origin_of(record)))
    except (DecodeError, ValueError):
        return Decoded(record, _arrival(record, _lost(record)), Skip.UNDECODABLE)


def origin_of(record: Record) -> Origin | None:
    """Where a replayed record stood first; None: it is no replay.

    Raises:
        ValueError: the header is not what `linkmesh dlq replay` writes.
    """
    path = record.header(REPLAY_OF)
    if path is None or record.header(REPLAY_FOR) is None:
        return None
    _, offset, stored_ms = (int(number) for number in path.split("/"))
    return Origin(offset, stored_ms)


def _arrival(record: Record, content: Clicks | Totals | Buried | None, origin: Origin | None = None) -> Arrival:
    return Arrival(record.partition, record.offset, record.timestamp_ms, content, origin)


def _clicks(value: bytes) -> Clicks:
    message = events_pb.LinksAccessed.FromString(value)
    if message.first_sequence < 1 or not message.clicks:
        raise ValueError("clicks have sequences from 1")
    return Clicks([_click(click) for click in message.clicks], _spool_id(message.spool_id), message.first_sequence)


def _click_alone(value: bytes) -> Clicks:
    message = events_pb.LinkAccessed.FromString(value)
    if not message.spool_id:
        return Clicks([_click(message)])
    if message.sequence < 1:
        raise ValueError("a click of a spool has a sequence from 1")
    return Clicks([_click(message)], _spool_id(message.spool_id), message.sequence)


def _click(message: events_pb.LinkAccessed) -> Click:
    """Each field is read once, and seconds and nanoseconds by themselves: the library's own conversion of times costs
    more than all else here.
    """
    key, user_id, at = message.link_key, message.user_id, message.at
    seconds = at.seconds
    if not key or _is_too_long(key) or _is_too_long(user_id):
        raise ValueError("no table takes such a key")
    if not 0 <= seconds < _YEAR_10000_S:
        raise ValueError("no calendar has this time")
    fields = (
        key,
        user_id,
        seconds * 1000 + at.nanos // 1_000_000,
        message.visitor,
        _CLASSES.get(message.visitor_class, VisitorClass.HUMAN),
        labels_of(country=message.country, referrer=message.referrer, user_agent=message.user_agent),
    )
    return _new_click(Click, fields)


def _is_too_long(name: str) -> bool:
    return len(name) > _NAME_BYTES_MAX or (not name.isascii() and len(name.encode()) > _NAME_BYTES_MAX)


def _totals(record: Record) -> Totals:
    message = events_pb.SpoolTotals.FromString(record.value)
    if message.partition != record.partition or message.recorded < 0 or message.dropped < 0:
        raise ValueError("totals stand in the partition they speak of")
    return Totals(_spool_id(message.spool_id), message.recorded, message.dropped, message.closed)


def _lost(record: Record) -> Buried | None:
    """The sequences of a record of which some click is none; None: they cannot be told, or it is a replay."""
    if record.header("ce_type") != _CLICKS or record.header(REPLAY_OF) is not None:
        return None
    try:
        message = SealedClicks.FromString(record.value)
        if message.first_sequence < 1 or not message.clicks:
            return None
        return Buried(_spool_id(message.spool_id), message.first_sequence, len(message.clicks))
    except (DecodeError, ValueError):
        return None


def _spool_id(text: str) -> str:
    """The one way to write this id. Raises ValueError if it is none."""
    return str(UUID(text))
