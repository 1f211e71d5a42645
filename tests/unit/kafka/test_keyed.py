"""The keyed runner on fakes, in virtual time: what services rely on, one promise a test."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.kafka.dlq import resume_message
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, Rejected, TopicPartition
from tests.fakes.kafka_keyed import DLQ, GROUP, TOPIC, Diary, done, make_bench, running
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


@pytest.mark.rule("C1")
def test_undecodable_is_buried_at_once_untouched() -> None:
    """A record that can never pass goes to the dead letters at its first failure, bytes and headers as they were."""

    async def scenario() -> None:
        bench = make_bench()

        async def decide(record: Record) -> Outcome:
            return Rejected("undecodable")

        headers = (("ce_id", b"1"), ("x", b"\xff\xfe"))
        bench.broker.append(TOPIC, b"k", b"\x00\xff", headers)
        diary = Diary(decide)
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(2)

        (letter,) = bench.broker.records(DLQ)
        assert (letter.key, letter.value, letter.headers[:2]) == (b"k", b"\x00\xff", headers)
        assert len(diary.seen) == 1
        assert bench.committed() == 1

    run_virtual(scenario())


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


@pytest.mark.rule("C2", "P1")
def test_nothing_is_committed_past_an_unacknowledged_dead_letter() -> None:
    """While the broker does not acknowledge the dead letter its offset stays uncommitted, and it is sent again."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def decide(record: Record) -> Outcome:
            if record.key == b"bad":
                bench.sender.acknowledges = 0
                return Rejected("undecodable")
            return Done()

        bench.append("bad", "good", "good")
        diary = Diary(decide)
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(0.9)
            committed_before = bench.committed()
            await asyncio.sleep(5)

        assert committed_before == 0
        assert bench.sender.calls == 2
        assert len([1 for _, record in diary.seen if record.key == b"bad"]) == 1, "burying again is not handling again"
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


@pytest.mark.rule("C5")
def test_breaker_trips_after_the_limit_survives_a_restart_and_needs_a_person() -> None:
    """More than 50 dead letters in an hour: consumption stops and readiness goes, also after a restart, until a
    person's resumption is found in the dead letter topic.
    """

    async def scenario() -> None:
        bench = make_bench()

        async def decide(record: Record) -> Outcome:
            return Done() if record.key.startswith(b"good") else Rejected("undecodable")

        diary = Diary(decide)
        bench.append(*[f"bad{n}" for n in range(200)])
        policy = KeyedPolicy(batch_records_max=1, lanes=1)
        runner, _ = bench.runner(diary, policy=policy)
        async with running(runner):
            await asyncio.sleep(60)
            told = bench.ready[-1]
        buried = len(bench.broker.records(DLQ))
        again, _ = bench.runner(diary, policy=policy)
        async with running(again):
            await asyncio.sleep(7200)
            buried_after_restart = len(bench.broker.records(DLQ))
            await bench.sender.send_in_order([resume_message(TOPIC, GROUP)], timeout_s=1)
            await asyncio.sleep(10)

        assert buried == buried_after_restart == 51
        assert told[0] is False
        assert "linkmesh dlq resume g" in told[1]
        letters = [record for record in bench.broker.records(DLQ) if record.header("dlq_group")]
        assert len(letters) == 102, "a resumption gives a whole hour's allowance"

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_the_breaker_stops_in_the_middle_of_a_batch_and_then_rests() -> None:
    """Whole batches of hopeless records in all lanes pour no more into the dead letters than one for each lane above
    the limit, nothing is committed past those that wait, and while it waits for a person the runner does not spin.
    """

    async def scenario() -> None:
        bench = make_bench()

        async def decide(record: Record) -> Outcome:
            return Rejected("undecodable", retry=record.key == b"later")

        bench.append("later", *[f"bad{n}" for n in range(2000)])
        runner, source = bench.runner(Diary(decide))
        polls, poll = 0, source.poll

        async def counted(*, timeout_s: float, records_max: int) -> Sequence[Record]:
            nonlocal polls
            polls += 1
            return await poll(timeout_s=timeout_s, records_max=records_max)

        source.poll = counted  # type: ignore[method-assign]  # counts, and passes on
        async with running(runner):
            await asyncio.sleep(60)
            before = polls
            await asyncio.sleep(60)
            polls_a_second = (polls - before) / 60

        assert 51 <= len(bench.broker.records(DLQ)) <= 50 + KeyedPolicy().lanes
        assert bench.committed() <= 50 + KeyedPolicy().lanes
        assert polls_a_second <= 2 / KeyedPolicy().poll_timeout_s

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_dead_letters_are_counted_from_zero_and_by_few_reasons() -> None:
    """Before the first letter the counters stand at 0, or the alert could not see them rise; exceptions share one."""

    def counts() -> dict[str, float]:
        found = [
            s for m in REGISTRY.collect() if m.name == "dead_letters" for s in m.samples if s.name.endswith("_total")
        ]
        return {s.labels["reason"]: s.value for s in found if s.labels["group"] == GROUP}

    async def scenario() -> None:
        bench = make_bench()

        async def decide(record: Record) -> Outcome:
            if record.key == b"bug":
                raise LookupError("a bug")
            return Rejected("undecodable")

        runner, _ = bench.runner(Diary(decide))
        before = counts()
        bench.append("bug", "garbage", "rubbish")
        async with running(runner):
            await asyncio.sleep(60)
        risen = {reason: value - before[reason] for reason, value in counts().items()}

        assert risen == {"conflict": 0, "exception": 1, "too_large": 0, "undecodable": 2, "validation": 0}

    run_virtual(scenario())


@pytest.mark.rule("C1", "C5")
def test_a_record_too_large_for_a_dead_letter_does_not_stop_its_partition() -> None:
    """What cannot be buried whole is buried without its content, saying so, and the records behind it are handled."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def decide(record: Record) -> Outcome:
            return Rejected("undecodable") if record.key == b"large" else Done()

        diary = Diary(decide)
        bench.sender.bytes_max = 100
        bench.append("large", value=b"x" * 101)
        bench.append("behind")
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(5)

        [letter] = bench.broker.records(DLQ)
        assert (letter.key, letter.value, letter.header("dlq_cut")) == (b"large", b"", "true")
        assert (letter.header("dlq_topic"), letter.header("dlq_offset")) == (TOPIC, "0")
        assert diary.times(b"behind")
        assert bench.committed() == 2

    run_virtual(scenario())


def test_a_replay_for_another_group_is_skipped() -> None:
    """A replayed dead letter is handled by the group that failed on it, and by no other."""

    async def scenario() -> None:
        bench = make_bench()
        bench.broker.append(TOPIC, b"mine", b"", (("replay_for", GROUP.encode()),))
        bench.broker.append(TOPIC, b"theirs", b"", (("replay_for", b"other"),))
        diary = Diary(done)
        runner, _ = bench.runner(diary)

        async with running(runner):
            await asyncio.sleep(2)

        assert [record.key for _, record in diary.seen] == [b"mine"]
        assert bench.committed() == 2

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
