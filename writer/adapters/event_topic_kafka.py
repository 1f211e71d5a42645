"""The topic of link events, read from the front to where it ends now, without a group."""

from collections.abc import Sequence
from datetime import datetime

from chassis.kafka.admin import Admin
from chassis.kafka.record import Record
from writer.ports import Span


class KafkaEventTopic:
    """EventTopic on a broker."""

    def __init__(self, admin: Admin, topic: str) -> None:
        self._admin = admin
        self._topic = topic

    async def spans(self, *, since: datetime | None) -> Sequence[Span]:
        """What each partition has now."""
        found = await self._admin.extents(self._topic, since=since)
        return [Span(partition, begin, end) for partition, (begin, end) in found.items() if begin < end]

    async def read(self, span: Span, offset: int, *, limit: int) -> Sequence[Record]:
        """Up to `limit` records of the span from that offset on."""
        records = await self._admin.records_behind({span.partition: offset}, limit=limit)
        return [record for record in records if record.offset < span.end]
