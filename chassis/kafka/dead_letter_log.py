"""What stands in the dead letter topics of a group, read on from call to call by every one of its processes [C5]."""

from collections.abc import Sequence
from datetime import timedelta

from chassis.clock import Clock
from chassis.kafka.admin import Admin
from chassis.kafka.dead_letter_breaker import LOOK_BACK_MS
from chassis.kafka.record import Record, TopicPartition

_RECORDS_MAX = 200_000  # of a look; a group that is stopped at 50 an hour leaves 1 200 a day


class DeadLetterLog:
    """Call it for the records of the last 24 hours, then for those that are new since; a few may come twice.

    Every call ends within the admin's limit; costs one request when nothing is new. Raises Unavailable, and then
    gives the same records the next time.
    """

    def __init__(self, admin: Admin, topics: Sequence[str], *, clock: Clock) -> None:
        self._admin = admin
        self._topics = topics
        self._clock = clock
        self._read_to: dict[TopicPartition, int] = {}

    async def __call__(self) -> Sequence[Record]:
        """What is new. Raises Unavailable."""
        if not self._read_to:
            return await self._from_the_beginning()
        ends = await self._admin.end_offsets(self._read_to)
        if any(end < self._read_to[tp] for tp, end in ends.items()):
            return await self._from_the_beginning()  # a topic was created anew
        if ends == self._read_to:
            return []
        records = await self._admin.records_behind(self._read_to, limit=_RECORDS_MAX)
        self._advance(records)
        return records

    async def _from_the_beginning(self) -> Sequence[Record]:
        partitions = [tp for topic in self._topics for tp in await self._admin.partitions(topic)]
        ends = await self._admin.end_offsets(partitions) if partitions else {}
        since = self._clock.now() - timedelta(milliseconds=LOOK_BACK_MS)
        records = await self._admin.records_since(self._topics, since, limit=_RECORDS_MAX)
        self._read_to = dict(ends)
        self._advance(records)
        return records

    def _advance(self, records: Sequence[Record]) -> None:
        for record in records:
            place = record.topic_partition
            self._read_to[place] = max(self._read_to.get(place, 0), record.offset + 1)
