"""The single questions of `Admin`, each on open clients and without a limit of its own: the caller has one."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as ClientPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from chassis.kafka.record import Position, Record, TopicPartition
from chassis.kafka.source_kafka import record_of

_ASK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Clients:
    """Two connections of the library: one that asks, one that reads."""

    admin: AIOKafkaAdminClient
    reader: AIOKafkaConsumer


async def describe(clients: Clients, topics: Sequence[str]) -> Mapping[str, Sequence[TopicPartition]]:
    """The partitions of those of these topics that exist."""
    if not topics:
        return {}  # an empty list would mean all
    return {
        topic["topic"]: sorted(TopicPartition(topic["topic"], part["partition"]) for part in topic["partitions"])
        for topic in await clients.admin.describe_topics(list(topics))
        if topic["error_code"] == 0
    }


async def coordinator(clients: Clients, group: str) -> int:
    """The node that keeps the group. The first question to a new cluster makes it create its topic of offsets."""
    while True:
        try:
            node: int = await clients.admin.find_coordinator(group)
            return node
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(_ASK_AGAIN_S)


async def committed(clients: Clients, group: str) -> Position:
    """The next offsets a group has committed."""
    node = await coordinator(clients, group)
    found = await clients.admin.list_consumer_group_offsets(group, group_coordinator_id=node)
    return {TopicPartition(*tp): kept.offset for tp, kept in found.items() if kept.offset >= 0}


async def begin_offsets(clients: Clients, partitions: Collection[TopicPartition]) -> Position:
    """The offset of the oldest record of each partition."""
    found = await clients.reader.beginning_offsets([ClientPartition(*tp) for tp in partitions])
    return {TopicPartition(*tp): offset for tp, offset in found.items()}


async def end_offsets(clients: Clients, partitions: Collection[TopicPartition]) -> Position:
    """The offset behind the newest record of each partition."""
    found = await clients.reader.end_offsets([ClientPartition(*tp) for tp in partitions])
    return {TopicPartition(*tp): offset for tp, offset in found.items()}


async def offsets_at(clients: Clients, partitions: Collection[TopicPartition], moment_ms: int) -> Position:
    """The first offset with a timestamp from that moment on; partitions that have none are left out."""
    found = await clients.reader.offsets_for_times({ClientPartition(*tp): moment_ms for tp in partitions})
    return {TopicPartition(*tp): start.offset for tp, start in found.items() if start is not None}


async def first_records(clients: Clients, positions: Position) -> Mapping[TopicPartition, Record]:
    """The first record at or behind each of these offsets, all of which are before the end."""
    found: dict[TopicPartition, Record] = {}
    _start_reading(clients, positions)
    while len(found) < len(positions):
        for held, records in (await clients.reader.getmany(timeout_ms=500)).items():
            found.setdefault(TopicPartition(*held), record_of(records[0]))
            clients.reader.pause(held)
    return found


async def records_between(clients: Clients, starts: Position, ends: Position, limit: int) -> Sequence[Record]:
    """Up to `limit` records from `starts` on and before `ends`."""
    found: list[Record] = []
    pending = {tp for tp, start in starts.items() if start < ends[tp]}
    _start_reading(clients, {tp: starts[tp] for tp in pending})
    while pending and len(found) < limit:
        for held, records in (await clients.reader.getmany(timeout_ms=500)).items():
            end = ends[TopicPartition(*held)]
            found += [record_of(record) for record in records if record.offset < end]
            if records[-1].offset + 1 >= end:
                pending.discard(TopicPartition(*held))
                clients.reader.pause(held)
    return found[:limit]


def _start_reading(clients: Clients, positions: Position) -> None:
    clients.reader.assign([ClientPartition(*tp) for tp in positions])
    for tp, offset in positions.items():
        clients.reader.seek(ClientPartition(*tp), offset)
