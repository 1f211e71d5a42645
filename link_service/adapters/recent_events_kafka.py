"""What `links-events` has that a Redis which came back may have forgotten [R8]."""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.record import Record, TopicPartition
from chassis.kafka.stretch import Bounds, LogStretches, open_log
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError, decode_event
from contracts.topics import LINKS_EVENTS
from link_service.domain.recovery import WINDOW_MS, LogState, Offsets

logger = logging.getLogger(__name__)
WRITER_GROUP = LINKS_EVENTS.groups[0]
_TOPIC = LINKS_EVENTS.name
_AT_ONCE = 200  # records decoded in one turn of the loop that also answers calls


class KafkaRecentEvents:
    """The port RecentEvents."""

    def __init__(self, bootstrap: str, admin: Admin, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._admin = admin
        self._client_id = client_id

    async def ends(self) -> Offsets:
        """Where each partition ends."""
        partitions = [TopicPartition(_TOPIC, number) for number in range(LINKS_EVENTS.partitions)]
        return _by_number(await self._admin.end_offsets(partitions))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["KafkaReading"]:
        """For one recovery."""
        async with open_log(self._bootstrap, client_id=self._client_id) as log:
            yield KafkaReading(log, self._admin)


class KafkaReading:
    """The ports Reading and KeyReading."""

    def __init__(self, log: LogStretches, admin: Admin) -> None:
        self._log = log
        self._admin = admin

    async def state(self, *, recent: bool) -> LogState:
        """What there is to read now; `recent`: also where its last ten minutes begin, by the broker's clock."""
        # First: asked after the ends, a busy writer would be ahead of them, as if the log had been created again.
        written = await self._admin.committed(WRITER_GROUP)
        bounds = await self._bounds()
        newest_ms = await self._log.newest_ms(bounds) if recent else None
        lately = {} if newest_ms is None else await self._log.offsets_at(bounds, newest_ms - WINDOW_MS)
        return LogState(
            begins={tp.partition: bound.begin for tp, bound in bounds.items()},
            ends={tp.partition: bound.end for tp, bound in bounds.items()},
            recent=_by_number(lately),
            written=_by_number(written),
        )

    async def links(self, partition: int, start: int, end: int) -> AsyncIterator[Sequence[Link]]:
        """What the events between these offsets made of their links, in parts."""
        async for records in self._log.read(TopicPartition(_TOPIC, partition), start, end):
            for first in range(0, len(records), _AT_ONCE):
                yield list(_links(records[first : first + _AT_ONCE]))

    async def keys(self, starts: Offsets) -> AsyncIterator[Sequence[LinkKey]]:
        """The links of all events from these offsets to the end, in parts; a link may come several times."""
        for tp, bound in (await self._bounds()).items():
            start = max(bound.begin, starts.get(tp.partition, bound.end))
            async for records in self._log.read(tp, start, bound.end):
                yield [LinkKey(record.key.decode("utf-8", "replace")) for record in records]

    async def _bounds(self) -> Mapping[TopicPartition, Bounds]:
        bounds = await self._log.bounds(_TOPIC)
        if len(bounds) < LINKS_EVENTS.partitions:
            raise Unavailable("unavailable", f"{_TOPIC} is not known to the broker yet", retry_after_s=1)
        return bounds


def _links(records: Iterable[Record]) -> Iterable[Link]:
    for record in records:
        try:
            yield decode_event(record.header("ce_type") or "", record.value).link
        except UndecodableError:
            logger.warning("an event cannot be read and is left out: %s/%d", record.topic_partition, record.offset)


def _by_number(offsets: Mapping[TopicPartition, int]) -> Offsets:
    return {tp.partition: offset for tp, offset in offsets.items() if tp.topic == _TOPIC}
