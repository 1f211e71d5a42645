"""The keyed runner on fakes, in virtual time: what it needs is away, hangs, or comes back."""

import asyncio

import pytest

from chassis.errors import Unavailable
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, TopicPartition
from tests.fakes.kafka_keyed import DLQ, GROUP, TOPIC, Diary, done, make_bench, running
from tests.fakes.kafka_time import run_virtual


@pytest.mark.rule("C1", "P7")
def test_dependency_away_pauses_probes_and_burns_no_attempts() -> None:
    """An hour without the dependency: no dead letter, no attempt burnt, one small probe a second, not ready, the
    source paused yet polled; within seconds of its return everything is done.
    """

    async def scenario() -> None:
        bench = make_bench()
        away = True

        async def decide(record: Record) -> Outcome:
            if away:
                raise Unavailable("unavailable", "gone")
            return Done()

        diary = Diary(decide)
        bench.append(*[f"k{n}" for n in range(300)])
        runner, source = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(3600)
            probes, paused, told = len(diary.batches), set(source.paused), bench.ready[-1]
            away = False
            await asyncio.sleep(10)
            told_after = bench.ready[-1]

        assert 3000 < probes < 3700
        assert set(diary.batches[8:probes]) == {1}
        assert paused == {TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)}
        assert told == (False, "a dependency is away")
        assert told_after == (True, "")
        assert bench.broker.records(DLQ) == []
        assert bench.committed() == 300

    run_virtual(scenario())


@pytest.mark.rule("C1")
def test_a_handler_that_hangs_counts_as_dependency() -> None:
    """A call that takes longer than its limit is cancelled and nobody's fault; the same record comes again."""

    async def scenario() -> None:
        bench = make_bench()
        hangs = True

        async def decide(record: Record) -> Outcome:
            if hangs:
                await asyncio.sleep(1e6)
            return Done()

        diary = Diary(decide)
        bench.append("a")
        runner, _ = bench.runner(diary, policy=KeyedPolicy(handler_timeout_s=3))

        async with running(runner):
            await asyncio.sleep(100)
            hangs = False
            await asyncio.sleep(10)

        assert bench.broker.records(DLQ) == []
        assert diary.overlaps == 0
        assert bench.committed() == 1

    run_virtual(scenario())


@pytest.mark.rule("P7")
def test_broker_away_at_start_and_later_heals_by_itself() -> None:
    """Without a broker the runner is not ready and tries on; a consumer that breaks is opened anew from the commit."""

    async def scenario() -> None:
        bench = make_bench()
        bench.broker.away = True
        diary = Diary(done)
        runner, source = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(600)
            told = bench.ready[-1][0]
            bench.broker.away = False
            bench.append("a")
            await asyncio.sleep(10)
            source.breaks = True
            bench.append("b")
            await asyncio.sleep(10)
            assert bench.ready[-1] == (True, "")

        assert told is False
        assert source.opened == 2
        assert [record.key for _, record in diary.seen] == [b"a", b"b"]
        assert bench.committed() == 2

    run_virtual(scenario())


@pytest.mark.rule("C1", "P7")
def test_a_rebalance_while_the_dependency_is_away_does_not_stop_the_probing() -> None:
    """A rebalance empties the window; the runner reads on, has something to probe with, and finds back."""

    async def scenario() -> None:
        bench = make_bench()
        away = True

        async def decide(record: Record) -> Outcome:
            if away:
                raise Unavailable("unavailable", "gone")
            return Done()

        bench.append("a", "b", "c")
        runner, _ = bench.runner(Diary(decide))

        async with running(runner):
            await asyncio.sleep(5)
            await bench.broker.rebalance(GROUP)
            await asyncio.sleep(5)
            away = False
            await asyncio.sleep(5)
            committed = bench.committed()

        assert committed == 3

    run_virtual(scenario())


@pytest.mark.rule("C1")
def test_a_dependency_that_fails_midway_is_not_asked_once_per_record() -> None:
    """While the records of a batch that raised are tried alone, the first that finds the dependency away ends it:
    what was handled before counts, the rest is neither waited for nor counted as an attempt.
    """

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def decide(record: Record) -> Outcome:
            if len(diary.batches) == 1:
                raise KeyError("a bug that fails the whole batch")
            if record.value != b"0" and bench.broker.clock.monotonic() < 30:
                await asyncio.sleep(5)
                raise Unavailable("unavailable", "gone")
            return Done()

        diary = Diary(decide)
        bench.append(*[f"k{n}" for n in range(10)])
        runner, _ = bench.runner(diary, policy=KeyedPolicy(lanes=1))

        async with running(runner):
            await asyncio.sleep(5.5)
            in_the_first_round, committed = list(diary.batches), bench.committed()
            await asyncio.sleep(60)

        assert in_the_first_round == [10, 1, 1], "the batch, the record that passed, the one that found it away"
        assert committed == 1
        assert bench.broker.records(DLQ) == []
        assert bench.committed() == 10

    run_virtual(scenario())
