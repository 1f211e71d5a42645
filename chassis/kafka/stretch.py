"""Reads parts of a topic's log from one offset to another, as a stream; joins no group, changes no position.

For who must know what happened lately. Time is the broker's own: a wrong clock of this process moves nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as ClientPartition
from aiokafka.errors import IllegalStateError, KafkaError

from chassis.errors import Unavailable
from chassis.kafka.abandon import stop_consumer
from chassis.kafka.record import Position, Record, TopicPartition
from chassis.kafka.source_kafka import record_of

_FETCH_BYTES = 1 << 20
_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a partition has: from `begin` to the offset before `end`."""

    begin: int
    end: int


class LogStretches:
    """An open connection; see `open_log`. Whatever takes longer than `timeout_s` for one step raises Unavailable."""

    def __init__(self, consumer: AIOKafkaConsumer, *, timeout_s: float) -> None:
        self._consumer = consumer
        self._timeout_s = timeout_s

    async def bounds(self, topic: str) -> Mapping[TopicPartition, Bounds]:
        """Every partition of a topic; empty when there is no such topic.

        Raises:
            Unavailable: the broker is away.
        """
        with _translated():
            async with asyncio.timeout(self._timeout_s):
                client = self._consumer._client  # noqa: SLF001 (the public way needs a subscription)
                await client.add_topic(topic)
                held = [ClientPartition(topic, number) for number in self._consumer.partitions_for_topic(topic) or ()]
                if not held:
                    return {}
                begins = await self._consumer.beginning_offsets(held)
                ends = await self._consumer.end_offsets(held)
        return {TopicPartition(*tp): Bounds(begins[tp], ends[tp]) for tp in sorted(held)}

    async def newest_ms(self, bounds: Mapping[TopicPartition, Bounds]) -> int | None:
        """The broker's time of the newest record of all these partitions; None: they are empty.

        Raises:
            Unavailable: the broker is away.
        """
        newest: list[int] = []
        last = {tp: bound.end - 1 for tp, bound in bounds.items() if bound.begin < bound.end}
        while last:
            self._go_to(last)
            for record in await self._next_records():
                newest.append(record.timestamp_ms)
                last.pop(record.topic_partition, None)
        return max(newest, default=None)

    async def offsets_at(self, partitions: Collection[TopicPartition], moment_ms: int) -> Position:
        """The first offset with a broker time from that moment on; partitions that have none are left out.

        Raises:
            Unavailable: the broker is away.
        """
        with _translated():
            async with asyncio.timeout(self._timeout_s):
                found = await self._consumer.offsets_for_times({ClientPartition(*tp): moment_ms for tp in partitions})
        return {TopicPartition(*tp): start.offset for tp, start in found.items() if start is not None}

    async def read(self, partition: TopicPartition, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """The records from `start` on and before `end`, in order, in parts.

        Raises:
            Unavailable: the broker is away.
        """
        if start >= end:
            return
        self._go_to({partition: start})
        position = start
        while position < end:
            records = await self._next_records()
            position = records[-1].offset + 1
            yield [record for record in records if record.offset < end]

    def _go_to(self, positions: Position) -> None:
        self._consumer.assign([ClientPartition(*tp) for tp in positions])
        for tp, offset in positions.items():
            self._consumer.seek(ClientPartition(*tp), offset)

    async def _next_records(self) -> list[Record]:
        """At least one."""
        with _translated():
            async with asyncio.timeout(self._timeout_s):
                records: list[Record] = []
                while not records:
                    found = await self._consumer.getmany(timeout_ms=_POLL_MS)
                    records = [record_of(record) for part in found.values() for record in part]
                return records


@asynccontextmanager
async def open_log(bootstrap: str, *, client_id: str, timeout_s: float = 5.0) -> AsyncIterator[LogStretches]:
    """A connection of its own, closed on the way out whatever the broker does.

    Raises:
        Unavailable: the broker is away.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        client_id=client_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # what retention has removed meanwhile is not waited for
        request_timeout_ms=int(timeout_s * 1000),
        max_partition_fetch_bytes=_FETCH_BYTES,
        max_poll_records=None,
        fetch_max_wait_ms=10,  # a fetch that waits at the end of one partition keeps that of the next one waiting
    )
    try:
        with _translated():
            async with asyncio.timeout(timeout_s):
                await consumer.start()
        yield LogStretches(consumer, timeout_s=timeout_s)
    finally:
        await stop_consumer(consumer, timeout_s=1.0)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (KafkaError, IllegalStateError, OSError, TimeoutError) as error:
        raise Unavailable("unavailable", f"the broker does not answer: {type(error).__name__}") from error
