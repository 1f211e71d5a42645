"""The keyed runner on fakes, in virtual time: what services rely on, one promise a test."""

import asyncio
from collections import defaultdict

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, Rejected, TopicPartition
from tests.fakes.kafka_keyed import DLQ, GROUP, TOPIC, Diary, make_bench, running
from tests.fakes.kafka_time import run_virtual


@pytest.mark.rule("C2")
def test_everything_is_handled_once_in_key_order_and_committed() -> None:
    """Without faults each record is handled once, each key in order and never twice at a time, and all is committed."""

    async def scenario() -> None:
        bench = make_bench()

        async def slowly(record: Record) -> Outcome:
            await asyncio.sleep(0.01)
            return Done()

        diary = Diary(slowly)
        bench.append(*"abcab" * 40)
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(20)

        assert len(diary.seen) == 200
        assert diary.overlaps == 0
        for key in (b"a", b"b", b"c"):
            values = [int(value) for value in diary.values(key)]
            assert values == sorted(values)
        assert bench.committed() == 200

    run_virtual(scenario())


@pytest.mark.rule("C2")
def test_retry_ladder_then_dead_letter_while_other_keys_go_on() -> None:
    """A record that keeps failing is tried at 0, 0, 5 and 35 s and then buried with its story; other keys never wait,
    its own key's next record waits for it, and nothing behind it is committed before the burial.
    """

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def decide(record: Record) -> Outcome:
            return Rejected("conflict", "not mine", retry=True) if record.value == b"0" else Done()

        diary = Diary(decide)
        bench.append("bad")
        bench.append("good", "bad")
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(30)
            committed_while_waiting = bench.committed()
            await asyncio.sleep(10)

        tries = [at for at, record in diary.seen if record.value == b"0"]
        assert tries == pytest.approx([0, 0, 5, 35], abs=0.5)
        assert diary.times(b"good") == pytest.approx([0], abs=0.5)
        assert committed_while_waiting == 0
        assert diary.values(b"bad")[-1] == b"2"
        assert diary.times(b"bad")[-1] >= 35
        (letter,) = bench.broker.records(DLQ)
        assert (letter.key, letter.value) == (b"bad", b"0")
        told = {name: value.decode() for name, value in letter.headers}
        assert told["dlq_attempts"] == "4"
        assert (told["dlq_reason"], told["dlq_detail"]) == ("conflict", "not mine")
        assert (told["dlq_topic"], told["dlq_partition"], told["dlq_offset"]) == (TOPIC, "0", "0")
        assert told["dlq_group"] == GROUP
        assert bench.committed() == 3

    run_virtual(scenario())


@pytest.mark.rule("C2")
def test_an_exception_in_a_batch_is_pinned_on_its_record() -> None:
    """When a batch raises, its records are tried alone; only the one that raises again climbs the ladder."""

    async def scenario() -> None:
        bench = make_bench()

        async def decide(record: Record) -> Outcome:
            if record.key == b"bad":
                raise KeyError("secret=42")
            return Done()

        diary = Diary(decide)
        bench.append("a", "bad", "b")
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(2)
            good_done = {record.key for _, record in diary.seen}
            await asyncio.sleep(60)

        assert good_done == {b"a", b"bad", b"b"}
        (letter,) = bench.broker.records(DLQ)
        assert letter.key == b"bad"
        assert letter.header("dlq_reason") == "KeyError"
        assert letter.header("dlq_attempts") == "4"
        assert bench.committed() == 3

    run_virtual(scenario())


@pytest.mark.rule("C3")
def test_rebalance_with_work_in_flight_drains_and_cuts() -> None:
    """A rebalance waits for quick work and commits it; slow work is cut off at the drain limit, its result is not
    applied, and the new owner handles the record, never at the same time.
    """

    async def scenario() -> None:
        bench = make_bench()
        running_now: dict[bytes, int] = defaultdict(int)
        together = 0
        finished: list[bytes] = []

        async def decide(record: Record) -> Outcome:
            nonlocal together
            running_now[record.key] += 1
            together += running_now[record.key] > 1
            try:
                await asyncio.sleep(60 if record.key == b"slow" and bench.broker.clock.monotonic() < 1 else 1)
            finally:
                running_now[record.key] -= 1
            finished.append(record.key)
            return Done()

        one_each = KeyedPolicy(batch_records_max=1, drain_s=2)
        bench.broker.append(TOPIC, b"slow", partition=0)
        bench.broker.append(TOPIC, b"quick", partition=1)
        first, _ = bench.runner(Diary(decide), policy=one_each)
        second, _ = bench.runner(Diary(decide), policy=one_each)

        async with running(first):
            await asyncio.sleep(0.5)
            async with running(second):
                await asyncio.sleep(1.6)
                committed_while_draining = bench.committed()
                await asyncio.sleep(0.5)
                committed_at_drain = bench.committed()
                await asyncio.sleep(10)

        assert committed_while_draining <= committed_at_drain == 1
        assert sorted(finished) == [b"quick", b"slow"]
        assert together == 0
        assert bench.committed() == 2

    run_virtual(scenario())


def test_stop_drains_and_commits() -> None:
    """At stop, work in flight ends and is committed, nothing new begins, and run returns within the drain limit."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def decide(record: Record) -> Outcome:
            await asyncio.sleep(1)
            return Done()

        bench.append(*[f"k{n}" for n in range(100)])
        runner, _ = bench.runner(Diary(decide), policy=KeyedPolicy(batch_records_max=1, lanes=4))

        async with running(runner):
            await asyncio.sleep(1.5)
        ended = bench.broker.clock.monotonic()

        assert bench.committed() == 8
        assert ended < 4

    run_virtual(scenario())


def test_window_is_bounded() -> None:
    """However much there is to read, no more than the window's limit and one poll is held."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def never(record: Record) -> Outcome:
            await asyncio.sleep(1e6)
            return Done()

        bench.append(*[f"k{n}" for n in range(5000)])
        policy = KeyedPolicy(window_records_max=100, poll_records_max=50, handler_timeout_s=1e7)
        runner, source = bench.runner(Diary(never), policy=policy)

        async with running(runner):
            await asyncio.sleep(60)
            position = source.position(TopicPartition(TOPIC, 0))

        assert position == 100

    run_virtual(scenario())


def test_lag_is_the_age_of_the_oldest_unfinished_record() -> None:
    """The gauges tell how old the oldest unfinished record is by the broker's clock, and 0 when all is done."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)
        away = True

        async def decide(record: Record) -> Outcome:
            if away:
                raise Unavailable("unavailable", "gone")
            return Done()

        bench.append("a", "b", "c")
        runner, _ = bench.runner(Diary(decide))
        labels = {"group": GROUP, "topic": TOPIC, "partition": "0"}

        async with running(runner):
            await asyncio.sleep(100)
            behind = REGISTRY.get_sample_value("consumer_lag_seconds", labels)
            records = REGISTRY.get_sample_value("consumer_lag_records", labels)
            away = False
            await asyncio.sleep(10)
            caught_up = REGISTRY.get_sample_value("consumer_lag_seconds", labels)
        gone = REGISTRY.get_sample_value("consumer_lag_seconds", labels)

        assert behind == pytest.approx(100, abs=2)
        assert records == 3
        assert caught_up == 0
        assert gone is None, "a process that owns nothing reports nothing"

    run_virtual(scenario())
