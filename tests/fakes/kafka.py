"""A broker in memory, with the source and sender that stand for the real ones: tests/contract/kafka proves them."""

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.kafka.record import Headers, Message, Position, Record, TopicPartition
from chassis.kafka.source import Listener


class FakeBroker:
    """Topics, their records by broker time, and groups with their commits and members.

    `away`: nobody gets an answer, as if the broker were stopped. Members of a group get their share of the partitions
    at each join and leave, all being revoked before any is assigned, as the classic protocol does.
    """

    def __init__(self, clock: Clock, topics: dict[str, int]) -> None:
        self.clock = clock
        self.away = False
        self.logs: dict[TopicPartition, list[Record]] = {
            TopicPartition(topic, number): [] for topic, count in topics.items() for number in range(count)
        }
        self.committed: dict[str, dict[TopicPartition, int]] = defaultdict(dict)
        self.commits: list[Position] = []
        self.members: dict[str, list[FakeSource]] = defaultdict(list)
        self.arrived = asyncio.Event()
        self._rebalancing = asyncio.Lock()

    def append(
        self, topic: str, key: bytes, value: bytes = b"", headers: Headers = (), partition: int | None = None
    ) -> Record:
        """Store a record as the broker would; without a partition the key's hash decides."""
        if partition is None:
            count = sum(1 for tp in self.logs if tp.topic == topic)
            partition = zlib.crc32(key) % count
        log = self.logs[TopicPartition(topic, partition)]
        timestamp_ms = int(self.clock.now().timestamp() * 1000)
        record = Record(topic, partition, len(log), timestamp_ms, key, value, headers)
        log.append(record)
        self.arrived.set()
        return record

    def records(self, topic: str) -> list[Record]:
        """All records of a topic."""
        return [record for tp, log in self.logs.items() if tp.topic == topic for record in log]

    async def rebalance(self, group: str) -> None:
        """Take everything from everybody, then share it out anew."""
        async with self._rebalancing:
            for member in list(self.members[group]):
                await member.lose()
            members = list(self.members[group])
            for place, member in enumerate(members):
                topics = sorted(tp for tp in self.logs if tp.topic in member.topics)
                await member.gain(topics[place :: len(members)])


class FakeSource:
    """A `Source` on a `FakeBroker`. `breaks`: the next poll finds that the consumer has broken."""

    def __init__(self, broker: FakeBroker, *, group: str, topics: Iterable[str], assign_all: bool = False) -> None:
        self.broker = broker
        self.group = group
        self.topics = frozenset(topics)
        self.breaks = False
        self.opened = 0
        self.paused: set[TopicPartition] = set()
        self._assign_all = assign_all
        self._listener: Listener | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._losing = False

    async def open(self, listener: Listener) -> None:
        self._answer()
        self._listener = listener
        self.opened += 1
        if self._assign_all:
            await self.gain(sorted(tp for tp in self.broker.logs if tp.topic in self.topics))
        else:
            self.broker.members[self.group].append(self)
            await self.broker.rebalance(self.group)

    async def close(self) -> None:
        if self._listener is None:
            return
        self._listener = None
        self._positions.clear()
        self.paused.clear()
        if self in self.broker.members[self.group]:
            self.broker.members[self.group].remove(self)
            await self.broker.rebalance(self.group)

    async def lose(self) -> None:
        """The broker takes all partitions away."""
        self._losing = True  # nothing is read while it drains, yet it may commit
        if self._listener is not None and self._positions:
            await self._listener.revoked(sorted(self._positions))
        self._losing = False
        self._positions.clear()
        self.paused.clear()

    async def gain(self, partitions: Sequence[TopicPartition]) -> None:
        """The broker gives these partitions."""
        assert self._listener is not None, "only an open source is a member"
        committed = self.broker.committed[self.group]
        self._positions = {tp: committed.get(tp, 0) for tp in partitions}
        await self._listener.assigned(partitions)

    async def poll(self, *, timeout_s: float, records_max: int) -> Sequence[Record]:
        if self._listener is None or self.breaks:
            self.breaks = False
            raise Unavailable("unavailable", "the source is not open")
        found = self._next(records_max)
        if not found:
            self.broker.arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self.broker.arrived.wait()
            except TimeoutError:
                return []
            found = self._next(records_max)
        return found

    def _next(self, records_max: int) -> list[Record]:
        found: list[Record] = []
        if self.broker.away or self._losing:
            return found
        for tp, position in self._positions.items():
            if tp not in self.paused:
                records = self.broker.logs[tp][position : position + records_max - len(found)]
                self._positions[tp] = position + len(records)
                found += records
        return found

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused |= set(partitions) & self._positions.keys()

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        if self.paused & set(partitions):
            self.paused -= set(partitions)
            self.broker.arrived.set()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    async def seek_to_beginning(self, partition: TopicPartition) -> None:
        self._answer()
        self.seek(partition, 0)

    async def commit(self, position: Position) -> None:
        self._answer()
        held = {tp: offset for tp, offset in position.items() if tp in self._positions}
        self.broker.committed[self.group].update(held)
        self.broker.commits.append(held)

    def end_offset(self, partition: TopicPartition) -> int | None:
        return len(self.broker.logs[partition]) if partition in self._positions else None

    def position(self, partition: TopicPartition) -> int | None:
        return self._positions.get(partition)

    def _answer(self) -> None:
        if self.broker.away:
            raise Unavailable("unavailable", "the broker does not answer")


class FakeSender:
    """A `Sender` on a `FakeBroker`. `acknowledges` is how many of the next call's messages the broker will
    acknowledge; `stores` how many it will store (None: all). `bytes_max` is what a key and a value may have together.
    """

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.calls = 0
        self.acknowledges: int | None = None
        self.stores: int | None = None
        self.bytes_max = 1_000_000

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        self.calls += 1
        if any(len(message.key) + len(message.value) > self.bytes_max for message in messages):
            raise ValueError("a message is too large")
        if self.broker.away:
            await asyncio.sleep(timeout_s)
            return 0
        acknowledged, self.acknowledges = self.acknowledges, None
        stored, self.stores = self.stores, None
        for message in messages[:stored]:
            self.broker.append(message.topic, message.key, message.value, message.headers, message.partition)
        return min(len(messages), len(messages) if acknowledged is None else acknowledged)
