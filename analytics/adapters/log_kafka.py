"""What the broker tells of the topic of clicks, and who owns its partitions."""

from collections.abc import Collection, Mapping

from analytics.domain.checkpoints import Checkpoint, LogView
from chassis.clock import Clock
from chassis.kafka.admin import Admin
from chassis.kafka.record import TopicPartition

_OWNERS_AGE_MAX_S = 1.0
_PARTITIONS_AGE_MAX_S = 10.0


class KafkaLog:
    """A Log. `admin` is the caller's, who closes it; its deadline bounds each call."""

    def __init__(self, admin: Admin, *, topic: str, group: str, clock: Clock) -> None:
        self._admin = admin
        self._topic = topic
        self._group = group
        self._clock = clock
        self._owners: Mapping[TopicPartition, str] = {}
        self._owners_at: float | None = None
        self._partitions = 0
        self._partitions_at: float | None = None

    async def partitions(self) -> int:
        """How many partitions the topic has, at most 10 s old: the count grows once in years, if ever."""
        now = self._clock.monotonic()
        if self._partitions_at is None or now - self._partitions_at > _PARTITIONS_AGE_MAX_S or not self._partitions:
            self._partitions = len(await self._admin.partitions(self._topic))
            self._partitions_at = now
        return self._partitions

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The offset behind the newest record of each partition."""
        found = await self._admin.end_offsets([self._place(partition) for partition in partitions])
        return {place.partition: offset for place, offset in found.items()}

    async def around(self, checkpoint: Checkpoint) -> LogView:
        """What the log looks like where a checkpoint says it was folded to."""
        place = self._place(checkpoint.partition)
        end = (await self._admin.end_offsets([place]))[place]
        if checkpoint.offset == 0 or end < checkpoint.offset:
            return LogView(end, None)
        record = await self._admin.record_at(place, checkpoint.offset - 1)
        return LogView(end, None if record is None else (record.offset, record.timestamp_ms))

    async def owner(self, partition: int, *, fresh: bool = False) -> str | None:
        """`host:port` of the process that owns a partition: its client id in the group."""
        now = self._clock.monotonic()
        if fresh or self._owners_at is None or now - self._owners_at > _OWNERS_AGE_MAX_S:
            self._owners = await self._admin.group_members(self._group)
            self._owners_at = now
        return self._owners.get(self._place(partition))

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)
