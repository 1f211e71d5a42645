"""The checkpointed runner on a fake broker in virtual time: the handler's own position rules, calls never overlap."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.kafka.checkpointed import CheckpointedPolicy, CheckpointedRunner
from chassis.kafka.record import Position, Record, TopicPartition
from tests.fakes.kafka import FakeBroker, FakeSource
from tests.fakes.kafka_time import VirtualClock, run_virtual

TOPIC, GROUP = "t", "g"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


@dataclass
class Store:
    """What survives a process: sums with their positions, written together; `away` refuses everything."""

    sums: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    away: bool = False

    def write(self, partition: TopicPartition, offset: int, total: int) -> None:
        """Conditional, as the product's stores are: never back to an older offset."""
        self.ask()
        if offset > self.sums.get(partition, (0, 0))[0]:
            self.sums[partition] = (offset, total)

    def ask(self) -> None:
        """Answer, or be away."""
        if self.away:
            raise Unavailable("unavailable", "the store is away")


@dataclass
class Summing:
    """A handler that adds up values in memory and flushes when told, every third checkpoint or when revoked."""

    store: Store
    takes_s: float = 0.0
    calls: list[str] = field(default_factory=list)
    handled: list[Record] = field(default_factory=list)
    memory: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    busy: bool = False
    checkpoints: int = 0
    bug: Exception | None = None

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        assert not self.busy, "two calls at a time"
        self.busy = True
        self.calls.append(name)
        try:
            await asyncio.sleep(self.takes_s)
            yield
        finally:
            self.busy = False

    async def assigned(self, partitions: Collection[TopicPartition]) -> Position:
        async with self._alone("assigned"):
            self.store.ask()
            known = {tp: self.store.sums[tp] for tp in partitions if tp in self.store.sums}
            self.memory |= {tp: known.get(tp, (0, 0)) for tp in partitions}
            return {tp: offset for tp, (offset, _) in known.items()}

    async def handle(self, records: Sequence[Record]) -> None:
        async with self._alone("handle"):
            if self.bug is not None:
                raise self.bug
            self.store.ask()
            for record in records:
                offset, total = self.memory[record.topic_partition]
                assert record.offset == offset, "a gap or a repeat"
                self.memory[record.topic_partition] = (offset + 1, total + int(record.value))
                self.handled.append(record)

    async def revoked(self, partitions: Collection[TopicPartition]) -> Position:
        async with self._alone("revoked"):
            self._flush(partitions)
            for partition in partitions:
                del self.memory[partition]
            return {tp: self.store.sums[tp][0] for tp in partitions if tp in self.store.sums}

    async def checkpoint(self) -> Position:
        async with self._alone("checkpoint"):
            self.checkpoints += 1
            if self.checkpoints % 3 == 0:
                self._flush(list(self.memory))
            return {tp: self.store.sums[tp][0] for tp in self.memory if tp in self.store.sums}

    def _flush(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self.store.write(partition, *self.memory[partition])


@dataclass
class Bench:
    """A broker with two partitions and a store."""

    broker: FakeBroker
    store: Store
    ready: list[tuple[bool, str]] = field(default_factory=list)

    def append(self, count: int) -> None:
        """Append so many records of value 1 to each partition."""
        for number in range(count):
            for partition in (0, 1):
                self.broker.append(TOPIC, str(number).encode(), b"1", partition=partition)

    def runner(
        self, handler: Summing, policy: CheckpointedPolicy | None = None, *, assign_all: bool = False
    ) -> tuple[CheckpointedRunner, FakeSource]:
        """A runner that is not running yet."""
        source = FakeSource(self.broker, group=GROUP, topics=[TOPIC], assign_all=assign_all)
        runner = CheckpointedRunner(
            source=source,
            handler=handler,
            clock=self.broker.clock,
            group=GROUP,
            set_ready=lambda met, why: self.ready.append((met, why)),
            policy=policy,
        )
        return runner, source

    def total(self) -> int:
        """What the store holds."""
        return sum(total for _, total in self.store.sums.values())


def make_bench() -> Bench:
    """A bench; call it inside the virtual loop."""
    return Bench(FakeBroker(VirtualClock(), {TOPIC: 2}), Store())


@asynccontextmanager
async def running(*runners: CheckpointedRunner) -> AsyncIterator[None]:
    """Run these for the length of the block, then stop them in order."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for runner in runners:
            tasks.create_task(runner.run(stop))
        try:
            yield
        finally:
            stop.set()


@pytest.mark.rule("C4", "A4")
def test_the_handlers_position_rules_not_kafkas() -> None:
    """Wherever Kafka's commit stands, reading goes on where the handler's store says: each record counts once."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(10)
        first = Summing(bench.store)
        runner, _ = bench.runner(first)
        async with running(runner):
            await asyncio.sleep(10)
        bench.broker.committed[GROUP] = {P0: 9, P1: 0}  # one ahead of nothing, one far behind
        bench.append(5)
        second = Summing(bench.store)
        runner, _ = bench.runner(second)
        async with running(runner):
            await asyncio.sleep(10)

        assert len(first.handled) == 20
        assert len(second.handled) == 10
        assert bench.total() == 30
        assert bench.store.sums == {P0: (15, 15), P1: (15, 15)}

    run_virtual(scenario())


@pytest.mark.rule("C4", "A4")
def test_a_commit_ahead_of_the_store_skips_nothing() -> None:
    """Kafka's commit may be ahead: a store was restored, or somebody else committed. The store's word counts."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(10)
        bench.store.sums = {P0: (4, 4), P1: (0, 0)}
        bench.broker.committed[GROUP] = {P0: 9, P1: 10}
        handler = Summing(bench.store)
        runner, _ = bench.runner(handler)

        async with running(runner):
            await asyncio.sleep(10)

        assert len(handler.handled) == 16
        assert bench.store.sums == {P0: (10, 10), P1: (10, 10)}

    run_virtual(scenario())


@pytest.mark.rule("A4")
def test_without_state_it_begins_at_the_oldest_record() -> None:
    """A partition of which the store knows nothing is read from its beginning, also when Kafka has a commit."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(3)
        bench.broker.committed[GROUP] = {P0: 3, P1: 3}
        handler = Summing(bench.store)
        runner, _ = bench.runner(handler)
        async with running(runner):
            await asyncio.sleep(5)

        assert len(handler.handled) == 6

    run_virtual(scenario())


@pytest.mark.rule("C4")
def test_checkpoints_are_committed_for_lag_tools() -> None:
    """What is committed is what the handler says is stored, never what is only in its memory."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(4)
        handler = Summing(bench.store)
        runner, _ = bench.runner(handler)
        async with running(runner):
            await asyncio.sleep(1.5)
            in_memory, committed_before = len(handler.handled), dict(bench.broker.committed[GROUP])
            await asyncio.sleep(5)
            committed = dict(bench.broker.committed[GROUP])

        assert (in_memory, committed_before) == (8, {})
        assert committed == {P0: 4, P1: 4}

    run_virtual(scenario())


@pytest.mark.rule("C1", "A6", "P7")
@pytest.mark.parametrize("from_the_start", [True, False])
def test_store_away_pauses_and_retries_the_same_records(from_the_start: bool) -> None:
    """While the store is away the source is paused and polled, readiness is gone; then the very same records follow."""

    async def scenario() -> None:
        bench = make_bench()
        bench.store.away = from_the_start
        handler = Summing(bench.store)
        runner, source = bench.runner(handler)
        async with running(runner):
            await asyncio.sleep(5)
            bench.store.away = True
            bench.append(50)
            await asyncio.sleep(600)
            paused, told, handled = set(source.paused), bench.ready[-1], len(handler.handled)
            lag = REGISTRY.get_sample_value("consumer_lag_seconds", {"group": GROUP, "topic": TOPIC, "partition": "0"})
            bench.store.away = False
            await asyncio.sleep(5)
            told_after = bench.ready[-1]

        assert paused == {P0, P1}
        assert told == (False, "a dependency is away")
        assert handled == 0
        assert from_the_start or lag == pytest.approx(600, abs=3)
        assert told_after == (True, "")
        assert [r.offset for r in handler.handled if r.partition == 0] == list(range(50))
        assert bench.total() == 100

    run_virtual(scenario())


@pytest.mark.rule("A4", "C3")
def test_members_come_and_go_and_each_record_counts_once() -> None:
    """A rebalance flushes, the new owner goes on exactly there; one that cannot flush is replayed by the next owner."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(10)
        one, two = Summing(bench.store, takes_s=0.05), Summing(bench.store, takes_s=0.05)
        first, _ = bench.runner(one)
        second, _ = bench.runner(two)
        async with running(first):
            await asyncio.sleep(0.4)
            async with running(second):
                await asyncio.sleep(3)
                bench.append(10)
                await asyncio.sleep(3)
                bench.append(10)
                await asyncio.sleep(0.3)
                bench.store.away = True
                await bench.broker.rebalance(GROUP)
                bench.store.away = False
                await asyncio.sleep(10)

        assert one.handled
        assert two.handled
        assert bench.total() == 60
        assert bench.store.sums == {P0: (30, 30), P1: (30, 30)}

    run_virtual(scenario())


@pytest.mark.rule("C3")
def test_a_call_that_outlives_the_drain_is_cut_off() -> None:
    """A rebalance waits drain_s for the call that runs, then ends it; its records come again to the next owner."""

    async def scenario() -> None:
        bench = make_bench()
        handler = Summing(bench.store)
        runner, _ = bench.runner(handler, CheckpointedPolicy(drain_s=2, handler_timeout_s=1000))
        async with running(runner):
            await asyncio.sleep(1.1)
            handler.takes_s = 500
            bench.append(5)
            await asyncio.sleep(1)
            began = bench.broker.clock.monotonic()
            tasks = asyncio.timeout(30)
            async with tasks:
                await bench.broker.rebalance(GROUP)
            took = bench.broker.clock.monotonic() - began
            handler.takes_s = 0
            await asyncio.sleep(10)

        assert took == pytest.approx(4, abs=0.5), "2 s for the call, 2 s for revoked"
        assert bench.total() == 10

    run_virtual(scenario())


def test_a_bug_in_the_handler_ends_the_process() -> None:
    """An exception that is no dependency's is not swallowed: run raises it, and nothing is flushed on the way out."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(1)
        handler = Summing(bench.store, bug=KeyError("ours"))
        runner, _ = bench.runner(handler)

        with pytest.raises(KeyError):
            await runner.run(asyncio.Event())

        assert "revoked" not in handler.calls
        assert bench.store.sums == {}

    run_virtual(scenario())


@pytest.mark.rule("B2")
def test_assign_all_reads_everything_and_flushes_at_stop() -> None:
    """Without membership one process reads all partitions, heals a broken source, and flushes and commits at stop."""

    async def scenario() -> None:
        bench = make_bench()
        bench.append(5)
        handler = Summing(bench.store)
        runner, source = bench.runner(handler, assign_all=True)
        async with running(runner):
            await asyncio.sleep(1.5)
            source.breaks = True
            await asyncio.sleep(2)
            bench.append(5)
            await asyncio.sleep(0.5)

        assert source.opened == 2
        assert bench.store.sums == {P0: (10, 10), P1: (10, 10)}
        assert bench.broker.committed[GROUP] == {P0: 10, P1: 10}

    run_virtual(scenario())


def test_a_bug_in_giving_partitions_back_ends_the_process() -> None:
    """The source's own task swallows what a listener raises; the runner must not go on as if all had been flushed."""

    class Buggy(Summing):
        async def revoked(self, partitions: Collection[TopicPartition]) -> Position:
            raise LookupError("a bug")

    async def scenario() -> None:
        broker = FakeBroker(VirtualClock(), {TOPIC: 2})
        runner = CheckpointedRunner(
            source=FakeSource(broker, group=GROUP, topics=[TOPIC]),
            handler=Buggy(Store()),
            clock=broker.clock,
            group=GROUP,
            set_ready=lambda met, why: None,
        )
        running = asyncio.ensure_future(runner.run(asyncio.Event()))
        await asyncio.sleep(2)
        with contextlib.suppress(LookupError):  # as the source's task does
            await runner.revoked([P0])

        with pytest.raises(LookupError):
            async with asyncio.timeout(5):
                await running

    run_virtual(scenario())
