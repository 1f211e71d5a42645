"""A keyed runner on fakes in virtual time, and handlers that keep a diary."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chassis.kafka.dlq import TopicDeadLetters
from chassis.kafka.keyed import KeyedPolicy, KeyedRunner
from chassis.kafka.record import Done, Outcome, Record
from tests.fakes.kafka import FakeBroker, FakeSender, FakeSource
from tests.fakes.kafka_time import VirtualClock

GROUP = "g"
TOPIC = "t"
DLQ = "t-dlq"

Decide = Callable[[Record], Awaitable[Outcome]]


@dataclass
class Diary:
    """A handler that decides record by record, and notes when it saw what; `overlaps` counts keys that ran twice."""

    decide: Decide
    seen: list[tuple[float, Record]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    running: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    overlaps: int = 0

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        now = asyncio.get_running_loop().time()
        self.batches.append(len(records))
        for record in records:
            self.seen.append((now, record))
            self.running[record.key] += 1
            self.overlaps += self.running[record.key] > 1
        try:
            return [await self.decide(record) for record in records]
        finally:
            for record in records:
                self.running[record.key] -= 1

    def times(self, key: bytes) -> list[float]:
        """When records of this key were seen."""
        return [at for at, record in self.seen if record.key == key]

    def values(self, key: bytes) -> list[bytes]:
        """Which values of this key were seen, in order."""
        return [record.value for _, record in self.seen if record.key == key]


async def done(record: Record) -> Outcome:
    """Decides that all is well."""
    return Done()


@dataclass
class Bench:
    """A broker with one topic and its dead letters, and what a test needs to run consumers on it."""

    broker: FakeBroker
    sender: FakeSender
    ready: list[tuple[bool, str]] = field(default_factory=list)

    def append(self, *keys: str, value: bytes = b"") -> None:
        """Append a record per key; the value defaults to its number."""
        for key in keys:
            self.broker.append(TOPIC, key.encode(), value or str(len(self.broker.records(TOPIC))).encode())

    def dead_letters(self, per_hour_max: int = 50) -> TopicDeadLetters:
        """Dead letters on the broker."""

        async def history() -> Sequence[Record]:
            return self.broker.records(DLQ)

        return TopicDeadLetters(
            sender=self.sender, history=history, clock=self.broker.clock, group=GROUP, per_hour_max=per_hour_max
        )

    def runner(
        self, handler: Diary, *, policy: KeyedPolicy | None = None, per_hour_max: int = 50
    ) -> tuple[KeyedRunner, FakeSource]:
        """A runner that is not running yet, and its source."""
        source = FakeSource(self.broker, group=GROUP, topics=[TOPIC])
        runner = KeyedRunner(
            source=source,
            dead_letters=self.dead_letters(per_hour_max),
            handler=handler,
            policy=policy or KeyedPolicy(),
            clock=self.broker.clock,
            group=GROUP,
            set_ready=lambda met, why: self.ready.append((met, why)),
        )
        return runner, source

    def committed(self) -> int:
        """How many records of the topic the group has committed."""
        return sum(offset for tp, offset in self.broker.committed[GROUP].items() if tp.topic == TOPIC)


def make_bench(partitions: int = 2) -> Bench:
    """A bench; call it inside the virtual loop."""
    broker = FakeBroker(VirtualClock(), {TOPIC: partitions, DLQ: partitions})
    return Bench(broker, FakeSender(broker))


@asynccontextmanager
async def running(*runners: KeyedRunner) -> AsyncIterator[asyncio.Event]:
    """Run these for the length of the block, then stop them in order and wait."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for runner in runners:
            tasks.create_task(runner.run(stop))
        try:
            yield stop
        finally:
            stop.set()
