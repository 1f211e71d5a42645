"""The keyed runner on fakes, in virtual time: what it gives up on, and when it stops giving up."""

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from chassis.kafka.dlq import resume_message
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, Rejected
from tests.fakes.kafka_keyed import DLQ, GROUP, TOPIC, Diary, done, make_bench, running
from tests.fakes.kafka_time import run_virtual


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
