"""What tools and rules ask the broker about topics, offsets, lag and owners; joins no group, changes no position."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as ClientPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError

from chassis.errors import Unavailable
from chassis.kafka import admin_calls as calls
from chassis.kafka.abandon import abandon_client, stop_consumer
from chassis.kafka.record import Position, Record, TopicPartition

_TOPIC_EXISTS = 36  # error code of the Kafka protocol
_FETCH_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be. `settings` are the broker's own names, such as `retention.ms`."""

    name: str
    partitions: int
    replication: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is behind on a partition. `seconds` is the age of the first record it has not finished."""

    committed: int | None  # None: the group has never committed there
    end: int
    records: int
    seconds: float


class Admin:
    """An async context manager; opens lazily. Every call ends within `timeout_s` and raises Unavailable otherwise.

    Calls take turns; after a failure the next one connects anew.
    """

    def __init__(self, bootstrap: str, *, client_id: str, timeout_s: float = 5.0) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._clients: calls.Clients | None = None
        self._cut_off = False  # a call was given up in the middle: who knows what its connections are at

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create what is missing; returns the names created. Existing topics stay as they are.

        Raises ValueError when an existing topic has another number of partitions than its spec.
        """
        wanted = {
            spec.name: NewTopic(spec.name, spec.partitions, spec.replication, topic_configs=dict(spec.settings))
            for spec in specs
        }
        async with self._session() as clients:
            answer = await clients.admin.create_topics(list(wanted.values()))
            codes = {error[0]: (error[1], error[2]) for error in answer.topic_errors}
            existing = [name for name in wanted if codes[name][0] == _TOPIC_EXISTS]
            found = {name: len(partitions) for name, partitions in (await calls.describe(clients, existing)).items()}
        refused = {name: why for name, why in codes.items() if why[0] not in (0, _TOPIC_EXISTS)}
        if refused:
            raise Unavailable("unavailable", f"the broker did not create topics: {refused}")
        for spec in specs:
            if found.get(spec.name, spec.partitions) != spec.partitions:
                raise ValueError(f"{spec.name} has {found[spec.name]} partitions, not {spec.partitions}")
        return [name for name in wanted if codes[name][0] == 0]

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """The partitions of a topic, in order; empty when there is no such topic."""
        async with self._session() as clients:
            return (await calls.describe(clients, [topic])).get(topic, [])

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Position:
        """The offset behind the newest record of each partition."""
        async with self._session() as clients:
            return await calls.end_offsets(clients, partitions)

    async def extents(self, topic: str, *, since: datetime | None = None) -> Mapping[TopicPartition, tuple[int, int]]:
        """Of each partition the offset of its oldest record (of those from `since` on), and of its end."""
        async with self._session() as clients:
            partitions = (await calls.describe(clients, [topic])).get(topic, [])
            ends = await calls.end_offsets(clients, partitions)
            if since is None:
                begins = await calls.begin_offsets(clients, partitions)
            else:
                begins = {**ends, **await calls.offsets_at(clients, partitions, int(since.timestamp() * 1000))}
        return {partition: (min(begins[partition], ends[partition]), ends[partition]) for partition in partitions}

    async def committed(self, group: str) -> Position:
        """The next offsets a group has committed; partitions without a commit are left out."""
        async with self._session() as clients:
            return await calls.committed(clients, group)

    async def lag(self, group: str, topics: Sequence[str], *, now: datetime) -> Mapping[TopicPartition, Lag]:
        """Lag of a group on every partition of these topics, at broker time against `now`."""
        async with self._session() as clients:
            # The group's offsets first: read the other way round a busy group would look ahead of the end.
            committed = await calls.committed(clients, group)
            described = await calls.describe(clients, topics)
            partitions = [tp for found in described.values() for tp in found]
            begins = await calls.begin_offsets(clients, partitions)
            ends = await calls.end_offsets(clients, partitions)
            positions = {tp: max(committed.get(tp, 0), begins[tp]) for tp in partitions}
            behind = {tp: offset for tp, offset in positions.items() if offset < ends[tp]}
            oldest = await calls.first_records(clients, behind)
        return {
            tp: Lag(
                committed=committed.get(tp),
                end=ends[tp],
                records=max(0, ends[tp] - positions[tp]),
                seconds=max(0.0, now.timestamp() - oldest[tp].timestamp_ms / 1000) if tp in oldest else 0.0,
            )
            for tp in sorted(partitions)
        }

    async def record_at(self, partition: TopicPartition, offset: int) -> Record | None:
        """The first record at or behind `offset`; None when there is none (for K2: is it younger than …?)."""
        async with self._session() as clients:
            begin = (await calls.begin_offsets(clients, [partition]))[partition]
            end = (await calls.end_offsets(clients, [partition]))[partition]
            start = max(offset, begin)
            if start >= end:
                return None
            return (await calls.first_records(clients, {partition: start}))[partition]

    async def records_since(self, topics: Sequence[str], since: datetime, *, limit: int = 10_000) -> Sequence[Record]:
        """Up to `limit` records with a timestamp from `since` on, of all partitions, in no order across these."""
        async with self._session() as clients:
            partitions = [tp for found in (await calls.describe(clients, topics)).values() for tp in found]
            if not partitions:
                return []
            ends = await calls.end_offsets(clients, partitions)
            starts = await calls.offsets_at(clients, partitions, int(since.timestamp() * 1000))
            return await calls.records_between(clients, starts, ends, limit)

    async def records_of(
        self, partition: TopicPartition, *, from_ms: int, to_ms: int, limit: int = 100_000
    ) -> Sequence[Record]:
        """Up to `limit` records of a partition, in order, with a broker time in `from_ms` … `to_ms` (exclusive)."""
        async with self._session() as clients:
            ends = await calls.end_offsets(clients, [partition])
            starts = await calls.offsets_at(clients, [partition], from_ms)
            ends = {**ends, **await calls.offsets_at(clients, [partition], to_ms)}
            return await calls.records_between(clients, starts, ends, limit)

    async def records_behind(self, starts: Position, *, limit: int = 100_000) -> Sequence[Record]:
        """Up to `limit` records at and behind these offsets, up to where each partition ends now."""
        async with self._session() as clients:
            ends = await calls.end_offsets(clients, starts)
            begins = await calls.begin_offsets(clients, starts)  # of what was deleted since nothing would ever come
            there = {tp: max(offset, begins[tp]) for tp, offset in starts.items()}
            return await calls.records_between(clients, there, ends, limit)

    async def delete_before(self, position: Position) -> None:
        """Delete, for ever, what stands before these offsets. An offset beyond the end is refused as Unavailable."""
        async with self._session() as clients:
            await clients.admin.delete_records(
                {ClientPartition(*tp): RecordsToDelete(before_offset=offset) for tp, offset in position.items()}
            )

    async def group_members(self, group: str) -> Mapping[TopicPartition, str]:
        """The `client_id` of the owner of each assigned partition; empty while the group rebalances or is empty."""
        async with self._session() as clients:
            node = await calls.coordinator(clients, group)
            answers = await clients.admin.describe_consumer_groups([group], group_coordinator_id=node)
        owners: dict[TopicPartition, str] = {}
        for described in (found for answer in answers for found in answer.to_object()["groups"]):
            if described["state"] != "Stable":
                continue
            for member in described["members"]:
                assignment = ConsumerProtocol.ASSIGNMENT.decode(member["member_assignment"])
                owners |= {TopicPartition(*tp): member["client_id"] for tp in assignment.partitions()}
        return owners

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[calls.Clients]:
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                if self._cut_off:
                    await self._close()
                self._cut_off = True
                if self._clients is None:
                    await self._connect()
                assert self._clients is not None, "_connect sets it or raises"
                yield self._clients
                self._cut_off = False
        except (KafkaError, OSError, TimeoutError) as error:
            await self._close()
            raise Unavailable("unavailable", f"the broker does not answer: {type(error).__name__}") from error

    async def _connect(self) -> None:
        timeout_ms = int(self._timeout_s * 1000)
        self._clients = calls.Clients(
            AIOKafkaAdminClient(
                bootstrap_servers=self._bootstrap, client_id=self._client_id, request_timeout_ms=timeout_ms
            ),
            AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                request_timeout_ms=timeout_ms,
                max_partition_fetch_bytes=_FETCH_BYTES,
            ),
        )
        await self._clients.admin.start()
        await self._clients.reader.start()

    async def _close(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            clients.admin._closed = True  # noqa: SLF001 (its own close waits for sockets without a limit)
            await abandon_client(clients.admin._client)  # noqa: SLF001 (as above)
            await stop_consumer(clients.reader, timeout_s=1.0)
