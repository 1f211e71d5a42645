"""Records of clicks come in: decode, load what they touch, fold, move on. Position and counts stand in one book."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

from prometheus_client import Counter

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint, is_another_log, next_epoch
from analytics.domain.holding import Tally
from analytics.handlers.burial import Burial
from analytics.handlers.decoding import Decoded, Skip, decode
from analytics.ports import CheckpointStore, Log, RowStore
from chassis.errors import Unavailable
from chassis.kafka.record import Position, Record, TopicPartition

CLICKS_COUNTED = Counter("clicks_counted", "Clicks that were added to a row, by class of visitor.", ("class",))
CLICKS_SKIPPED = Counter(
    "clicks_skipped",
    "What was not counted. Clicks: repeat (sent twice), stale (of a forgotten spool). "
    "Records: undecodable, other_type, other_group (replayed for another).",
    ("why",),
)
CLICKS_GAPS = Counter("clicks_gaps", "Times that clicks of a spool are missing: recorded, but never arrived.")
CLICKS_MISSING = Counter("clicks_missing", "Clicks that are missing in these gaps.")
CLICKS_REPLAYED = Counter("clicks_replayed", "Dead letters whose record was replayed and counted.")
LOG_RECREATED = Counter("analytics_log_recreated", "Partitions whose log was found to be another one.")

_PART_BYTES = 192 << 10  # of records are folded at a time, about a thousand clicks: then others have their turn
logger = logging.getLogger(__name__)

Flush = Callable[[int], Awaitable[None]]
Tell = Callable[[Tally], None]


def _tell_nobody(tally: Tally) -> None: ...


class ClickCounter:
    """A CheckpointedHandler. `flush` writes all of a partition at once and raises Unavailable where that fails; `tell`
    is called in the turn of each fold with what it did.
    """

    def __init__(
        self,
        book: Book,
        *,
        rows: RowStore,
        checkpoints: CheckpointStore,
        log: Log,
        flush: Flush,
        burial: Burial,
        topic: str,
        group: str,
        tell: Tell = _tell_nobody,
    ) -> None:
        self._book = book
        self._rows = rows
        self._checkpoints = checkpoints
        self._log = log
        self._flush = flush
        self._burial = burial
        self._topic = topic
        self._group = group
        self._tell = tell

    async def assigned(self, partitions: Collection[TopicPartition]) -> Position:
        """Where to go on: at the checkpoints, whatever Kafka says [A4]; on a log created anew at its start [A8]."""
        numbers = [place.partition for place in partitions]
        for number in numbers:
            self._book.forget(number)
        await self._burial.open()
        found = await self._checkpoints.load(numbers)
        standing = {number: await self._standing(checkpoint) for number, checkpoint in found.items()}
        for number in numbers:
            self._book.assign(standing.get(number, Checkpoint(number)))
        return self._position({number: checkpoint.offset for number, checkpoint in standing.items()})

    async def handle(self, records: Sequence[Record]) -> None:
        """Fold these records, a part of them at a time. Raises Unavailable, with the first parts folded and of the rest
        nothing, while rows cannot be loaded or must be written; the same records may then come again.
        """
        await self._burial.check()
        for part in _parts([record for record in records if not self._book.is_folded(record.partition, record.offset)]):
            await self._fold([decode(record, self._group) for record in part])
            await asyncio.sleep(0)  # a crowd of records may take seconds; heartbeats, flushes and queries go on

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

    async def _fold(self, decoded: Sequence[Decoded]) -> None:
        """After the last await all of these are folded. What is undecodable is buried just before, not earlier: a
        database that is away must not bury it again with each try.
        """
        arrivals = [one.arrival for one in decoded]
        if self._book.full:
            raise Unavailable("unavailable", "Rows must be written before more are counted.")
        missing = self._book.missing(arrivals)
        if missing:
            self._book.admit(missing, await self._rows.load(missing))
        await self._burial.bury([(one.record, one.skip) for one in decoded if one.skip is Skip.UNDECODABLE])
        tally = self._book.fold(arrivals)
        self._tell(tally)
        _count(tally, [one.skip for one in decoded if one.skip is not None])

    async def _standing(self, checkpoint: Checkpoint) -> Checkpoint:
        """This checkpoint if the log is still the one it is of, else the first of a new epoch."""
        if not is_another_log(checkpoint, await self._log.around(checkpoint)):
            return checkpoint
        LOG_RECREATED.inc()
        logger.warning("partition %d was created anew: a new epoch begins", checkpoint.partition)
        return await self._checkpoints.begin_epoch(next_epoch(checkpoint))

    def _position(self, offsets: Mapping[int, int]) -> Position:
        return {TopicPartition(self._topic, number): offset for number, offset in offsets.items()}


def _parts(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records in order, so many at a time as are folded in one turn; at least one."""
    part: list[Record] = []
    size = 0
    for record in records:
        if part and size + len(record.value) > _PART_BYTES:
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record.value)
    if part:
        yield part


def _count(tally: Tally, skips: Sequence[Skip]) -> None:
    for skip in skips:
        CLICKS_SKIPPED.labels(skip.value).inc()
    for visitor_class, clicks in tally.counted.items():
        CLICKS_COUNTED.labels(visitor_class.value).inc(clicks)
    tidings = tally.tidings
    CLICKS_SKIPPED.labels("repeat").inc(tidings.repeats)
    CLICKS_SKIPPED.labels("stale").inc(tidings.stale)
    CLICKS_REPLAYED.inc(tidings.replayed)
    if tidings.gaps:
        CLICKS_GAPS.inc(tidings.gaps)
        CLICKS_MISSING.inc(tidings.missing)
        logger.error(
            "%d gaps in the sequences of spools: %d clicks were recorded that never arrived",
            tidings.gaps,
            tidings.missing,
        )
