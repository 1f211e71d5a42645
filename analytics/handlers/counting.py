"""Records of clicks come in: decode, load what they touch, fold, move on. Position and counts stand in one book."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from prometheus_client import Counter

from analytics.domain.book import Book, Tally
from analytics.domain.checkpoints import Checkpoint, is_another_log, next_epoch
from analytics.domain.sequences import Verdict
from analytics.handlers.burial import Burial
from analytics.handlers.decoding import Skip, arrival_of, decode
from analytics.ports import CheckpointStore, Log, RowStore
from chassis.errors import Unavailable
from chassis.kafka.record import Position, Record, TopicPartition

CLICKS_COUNTED = Counter("clicks_counted", "Clicks that were added to a row, by class of visitor.", ("class",))
CLICKS_SKIPPED = Counter(
    "clicks_skipped",
    "Records that were not counted: repeat (sent twice), stale (of a forgotten spool), undecodable, other_type.",
    ("why",),
)
CLICKS_GAPS = Counter("clicks_gaps", "Times that clicks of a spool are missing: recorded, but never arrived.")
LOG_RECREATED = Counter("analytics_log_recreated", "Partitions whose log was found to be another one.")

logger = logging.getLogger(__name__)

Flush = Callable[[int], Awaitable[None]]


class ClickCounter:
    """A CheckpointedHandler. `flush` writes all of a partition at once and raises Unavailable where that fails."""

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
    ) -> None:
        self._book = book
        self._rows = rows
        self._checkpoints = checkpoints
        self._log = log
        self._flush = flush
        self._burial = burial
        self._topic = topic

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
        """Fold these records. Raises Unavailable, with nothing folded, while rows cannot be loaded or must be written.

        After the last await all of the records are folded. What is undecodable is buried just before, not earlier:
        a database that is away must not bury it again with each try.
        """
        await self._burial.check()
        decoded = [(record, *decode(record)) for record in records]
        arrivals = [arrival_of(record, click) for record, click, _ in decoded]
        if self._book.full:
            raise Unavailable("unavailable", "Rows must be written before more are counted.")
        missing = self._book.missing(arrivals)
        if missing:
            self._book.admit(missing, await self._rows.load(missing))
        await self._burial.bury([(record, skip) for record, _, skip in decoded if skip is Skip.UNDECODABLE])
        tally = self._book.fold(arrivals)
        _count(tally, [skip for _, _, skip in decoded if skip is not None])

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


def _count(tally: Tally, skips: Sequence[Skip]) -> None:
    for skip in skips:
        CLICKS_SKIPPED.labels(skip.value).inc()
    for visitor_class, clicks in tally.counted.items():
        CLICKS_COUNTED.labels(visitor_class.value).inc(clicks)
    CLICKS_SKIPPED.labels("repeat").inc(tally.verdicts[Verdict.REPEAT])
    CLICKS_SKIPPED.labels("stale").inc(tally.verdicts[Verdict.STALE])
    if gaps := tally.verdicts[Verdict.GAP]:
        CLICKS_GAPS.inc(gaps)
        logger.error("%d gaps in the sequences of spools: clicks were recorded that never arrived", gaps)
