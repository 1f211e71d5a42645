"""Clicks as a log would bring them."""

from analytics.domain.clicks import HOUR_MS, Arrival, Click, VisitorClass
from chassis.kafka.record import Record
from contracts.link import LinkKey
from contracts.topics import ANALYTICS_EVENTS
from shortener.events.v1 import click_events_pb2 as events_pb

T0_MS = 495_000 * HOUR_MS  # the first moment of an hour in June 2026
SPOOL = "019ee77a-1c00-7000-8000-00000000000"  # and one more digit; made at T0
_CLASSES = {
    VisitorClass.HUMAN: events_pb.VISITOR_CLASS_HUMAN,
    VisitorClass.BOT: events_pb.VISITOR_CLASS_BOT,
    VisitorClass.PREFETCH: events_pb.VISITOR_CLASS_PREFETCH,
}


def click(
    key: str = "aB3dE7x",
    *,
    at_ms: int = T0_MS,
    visitor: str = "v",
    visitor_class: VisitorClass = VisitorClass.HUMAN,
    spool_id: str = "",
    sequence: int = 0,
) -> Click:
    """A click; of a person, without a spool, where nothing else is said."""
    return Click(LinkKey(key), at_ms, visitor.encode(), visitor_class, spool_id, sequence)


def arrival(offset: int, what: Click | None, *, partition: int = 0, stored_ms: int = T0_MS) -> Arrival:
    """A record of the log that has been decoded."""
    return Arrival(partition, offset, stored_ms, what)


def record(offset: int, what: Click, *, partition: int = 0, stored_ms: int = T0_MS, topic: str = "clicks") -> Record:
    """A record of the log as the broker hands it out."""
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=stored_ms,
        key=what.key.encode(),
        value=message_of(what).SerializeToString(),
        headers=(("ce_type", ANALYTICS_EVENTS.event_types[0].encode()),),
    )


def message_of(what: Click) -> events_pb.LinkAccessed:
    """The event of a click."""
    message = events_pb.LinkAccessed(
        link_key=what.key,
        visitor=what.visitor,
        visitor_class=_CLASSES[what.visitor_class],
        spool_id=what.spool_id,
        sequence=what.sequence,
    )
    message.at.FromMilliseconds(what.at_ms)
    return message
