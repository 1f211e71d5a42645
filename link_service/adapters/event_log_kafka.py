"""What Kafka knows of link events that are not in the table yet."""

from datetime import UTC, datetime

from chassis.kafka.admin import Admin
from chassis.kafka.partitions import partition_of
from chassis.kafka.record import TopicPartition
from contracts.link import LinkKey
from contracts.topics import LINKS_EVENTS

WRITER_GROUP = LINKS_EVENTS.groups[0]


class KafkaEventLog:
    """The port EventLog."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def oldest_unwritten(self, key: LinkKey) -> datetime | None:
        """When the first record that the writer has not committed came into this link's partition; None: no such.

        Raises:
            Unavailable: the broker is away.
        """
        partition = TopicPartition(LINKS_EVENTS.name, partition_of(key.encode(), LINKS_EVENTS.partitions))
        committed = await self._admin.committed(WRITER_GROUP)
        record = await self._admin.record_at(partition, committed.get(partition, 0))
        return None if record is None else datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
