"""Clicks as a log would bring them."""

from collections.abc import Sequence

from analytics.domain.clicks import HOUR_MS, Arrival, Click, Clicks, Origin, VisitorClass
from chassis.kafka.record import Record
from contracts.link import LinkKey, UserId
from shortener.events.v1 import click_events_pb2 as events_pb

T0_MS = 495_000 * HOUR_MS  # the first moment of an hour in June 2026
SPOOL = "019ee77a-1c00-7000-8000-00000000000"  # and one more digit; made at T0
CLICK = events_pb.LinkAccessed.DESCRIPTOR.full_name
CLICKS = events_pb.LinksAccessed.DESCRIPTOR.full_name
TOTALS = events_pb.SpoolTotals.DESCRIPTOR.full_name
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
    user: str = "",
    labels: tuple[str, ...] = (),
) -> Click:
    """A click; of a person, on a link of nobody's, where nothing else is said."""
    return Click(LinkKey(key), UserId(user), at_ms, visitor.encode(), visitor_class, labels)


def arrival(
    offset: int,
    *clicks: Click,
    partition: int = 0,
    stored_ms: int = T0_MS,
    spool: str = "",
    first: int = 1,
    origin: Origin | None = None,
) -> Arrival:
    """A record of the log that has been decoded; without clicks it was none. `spool`: the last digit of its id."""
    content = None
    if clicks:
        content = Clicks(clicks, SPOOL + spool, first) if spool else Clicks(clicks)
    return Arrival(partition, offset, stored_ms, content, origin)


def record(
    offset: int,
    *clicks: Click,
    partition: int = 0,
    stored_ms: int = T0_MS,
    topic: str = "clicks",
    spool: str = "",
    first: int = 1,
) -> Record:
    """A record of the log as the broker hands it out. Without a spool it holds one click alone, as before there were
    spools.
    """
    if spool:
        kind, value = CLICKS, batch_of(clicks, SPOOL + spool, first).SerializeToString()
    else:
        (alone,) = clicks
        kind, value = CLICK, message_of(alone).SerializeToString()
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=stored_ms,
        key=spool.encode() or clicks[0].key.encode(),
        value=value,
        headers=(("ce_type", kind.encode()),),
    )


def totals_record(
    offset: int,
    *,
    spool: str,
    recorded: int,
    dropped: int = 0,
    closed: bool = False,
    partition: int = 0,
    stored_ms: int = T0_MS,
) -> Record:
    """What a spool's own books say, as a record."""
    message = events_pb.SpoolTotals(
        spool_id=SPOOL + spool, partition=partition, recorded=recorded, dropped=dropped, closed=closed
    )
    headers = (("ce_type", TOTALS.encode()),)
    return Record("clicks", partition, offset, stored_ms, b"", message.SerializeToString(), headers)


def batch_of(clicks: Sequence[Click], spool_id: str, first_sequence: int) -> events_pb.LinksAccessed:
    """The event of clicks of a spool."""
    return events_pb.LinksAccessed(
        spool_id=spool_id, first_sequence=first_sequence, clicks=[message_of(click) for click in clicks]
    )


def message_of(what: Click) -> events_pb.LinkAccessed:
    """The event of a click."""
    message = events_pb.LinkAccessed(
        link_key=what.key,
        user_id=what.user_id,
        visitor=what.visitor,
        visitor_class=_CLASSES[what.visitor_class],
    )
    message.at.FromMilliseconds(what.at_ms)
    return message
