"""writer's EventTopic in memory; tests/contract/test_writer_event_topic.py proves it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from chassis.errors import Unavailable
from chassis.kafka.record import Record, TopicPartition
from writer.ports import Span


@dataclass
class FakeEventTopic:
    """Records by partition, in order. `failures`: so many next calls find nobody there."""

    partitions: list[list[Record]] = field(default_factory=list)
    failures: int = 0
    reads: int = 0

    async def spans(self, *, since: datetime | None) -> Sequence[Span]:
        """What each partition has."""
        self._answer()
        begin_ms = 0 if since is None else int(since.timestamp() * 1000)
        spans = []
        for number, records in enumerate(self.partitions):
            wanted = [record for record in records if record.timestamp_ms >= begin_ms]
            if wanted:
                spans.append(Span(TopicPartition("links-events", number), wanted[0].offset, records[-1].offset + 1))
        return spans

    async def read(self, span: Span, offset: int, *, limit: int) -> Sequence[Record]:
        """Up to `limit` records from there on."""
        self._answer()
        self.reads += 1
        records = self.partitions[span.partition.partition]
        return [record for record in records if offset <= record.offset < span.end][:limit]

    def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("unavailable", "Nobody answers.")
