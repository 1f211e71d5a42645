"""Records of clicks come in: decode, load what they touch, fold, move on. Position and counts stand in one book."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from analytics.domain.book import Book, Tally
from analytics.domain.checkpoints import Checkpoint, is_another_log, next_epoch
from analytics.domain.clicks import Arrival, Click, VisitorClass
from analytics.domain.sequences import Verdict, is_forgotten
from analytics.ports import CheckpointStore, Log, RowStore
from chassis.errors import Unavailable
from chassis.kafka.record import Position, Record, TopicPartition
from contracts.link import LinkKey
from contracts.topics import ANALYTICS_EVENTS
from shortener.events.v1 import click_events_pb2 as events_pb

CLICKS_COUNTED = Counter("clicks_counted", "Clicks that were added to a row, by class of visitor.", ("class",))
CLICKS_SKIPPED = Counter(
    "clicks_skipped",
    "Records that were not counted: repeat (sent twice), stale (of a forgotten spool), undecodable, other_type.",
    ("why",),
)
CLICKS_GAPS = Counter("clicks_gaps", "Times that clicks of a spool are missing: recorded, but never arrived.")
LOG_RECREATED = Counter("analytics_log_recreated", "Partitions whose log was found to be another one.")

_TYPE = ANALYTICS_EVENTS.event_types[0]
_CLASSES: Mapping[int, VisitorClass] = {
    events_pb.VISITOR_CLASS_BOT: VisitorClass.BOT,
    events_pb.VISITOR_CLASS_PREFETCH: VisitorClass.PREFETCH,
}  # everything else is human, also what a newer gateway calls by a name we do not know
logger = logging.getLogger(__name__)

Flush = Callable[[int], Awaitable[None]]


class ClickCounter:
    """A CheckpointedHandler. `flush` writes all of a partition at once and raises Unavailable where that fails."""

    def __init__(
        self, book: Book, *, rows: RowStore, checkpoints: CheckpointStore, log: Log, flush: Flush, topic: str
    ) -> None:
        self._book = book
        self._rows = rows
        self._checkpoints = checkpoints
        self._log = log
        self._flush = flush
        self._topic = topic

    async def assigned(self, partitions: Collection[TopicPartition]) -> Position:
        """Where to go on: at the checkpoints, whatever Kafka says [A4]; on a log created anew at its start [A8]."""
        numbers = [place.partition for place in partitions]
        for number in numbers:
            self._book.forget(number)
        found = await self._checkpoints.load(numbers)
        standing = {number: await self._standing(checkpoint) for number, checkpoint in found.items()}
        for number in numbers:
            self._book.assign(standing.get(number, Checkpoint(number)))
        return self._position({number: checkpoint.offset for number, checkpoint in standing.items()})

    async def handle(self, records: Sequence[Record]) -> None:
        """Fold these records. Raises Unavailable, with nothing folded, while rows cannot be loaded or must be written.

        Between the last await and the end nothing else runs: all of the records are folded, or none.
        """
        arrivals = [_decode(record) for record in records]
        if self._book.full:
            raise Unavailable("unavailable", "Rows must be written before more are counted.")
        missing = self._book.missing(arrivals)
        if missing:
            self._book.admit(missing, await self._rows.load(missing))
        _count(self._book.fold(arrivals))

    async def revoked(self, partitions: Collection[TopicPartition]) -> Position:
        """Flush and forget these partitions; what is not flushed is folded again by the next owner."""
        numbers = [place.partition for place in partitions if place.partition in self._book.held]
        try:
            for number in numbers:
                await self._flush(number)
            saved = {number: self._book.saved_offset(number) for number in numbers}
        finally:
            for number in numbers:
                self._book.forget(number)
        return self._position(saved)

    async def checkpoint(self) -> Position:
        """The offsets of the stored checkpoints, for tools that show lag."""
        return self._position({number: self._book.saved_offset(number) for number in self._book.held})

    async def _standing(self, checkpoint: Checkpoint) -> Checkpoint:
        """This checkpoint if the log is still the one it is of, else the first of a new epoch."""
        if not is_another_log(checkpoint, await self._log.around(checkpoint)):
            return checkpoint
        LOG_RECREATED.inc()
        logger.warning("partition %d was created anew: a new epoch begins", checkpoint.partition)
        return await self._checkpoints.begin_epoch(next_epoch(checkpoint))

    def _position(self, offsets: Mapping[int, int]) -> Position:
        return {TopicPartition(self._topic, number): offset for number, offset in offsets.items()}


def _decode(record: Record) -> Arrival:
    """The arrival that a record is; without a click where its content is none, which is counted, never silent."""
    click = None
    if record.header("ce_type") != _TYPE:
        CLICKS_SKIPPED.labels("other_type").inc()  # an event that a newer gateway sends
    else:
        click = decode_click(record.value)
        if click is None:
            CLICKS_SKIPPED.labels("undecodable").inc()
            logger.error("undecodable click at %s/%d offset %d", record.topic, record.partition, record.offset)
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
    if not message.link_key or (message.spool_id and message.sequence < 1):
        return None
    return Click(
        key=LinkKey(message.link_key),
        at_ms=at_ms,
        visitor=message.visitor,
        visitor_class=_CLASSES.get(message.visitor_class, VisitorClass.HUMAN),
        spool_id=message.spool_id,
        sequence=message.sequence,
    )


def _count(tally: Tally) -> None:
    for visitor_class, clicks in tally.counted.items():
        CLICKS_COUNTED.labels(visitor_class.value).inc(clicks)
    CLICKS_SKIPPED.labels("repeat").inc(tally.verdicts[Verdict.REPEAT])
    CLICKS_SKIPPED.labels("stale").inc(tally.verdicts[Verdict.STALE])
    if gaps := tally.verdicts[Verdict.GAP]:
        CLICKS_GAPS.inc(gaps)
        logger.error("%d gaps in the sequences of spools: clicks were recorded that never arrived", gaps)
