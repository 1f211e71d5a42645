"""The keyed runner at its limits: what it holds, when it commits, what it does when there is nothing to do it with."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chassis.errors import Unavailable
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, Rejected, TopicPartition
from tests.fakes.kafka_keyed import DLQ, GROUP, TOPIC, Diary, done, make_bench, running
from tests.fakes.kafka_time import run_virtual

PARTITION = TopicPartition(TOPIC, 0)


@pytest.mark.rule("C1", "C3")
def test_polls_go_on_while_everything_is_paused() -> None:
    """A paused consumer that does not poll is thrown out of its group: several polls a second, all of them empty."""

    async def scenario() -> None:
        bench = make_bench()

        async def away(record: Record) -> Outcome:
            raise Unavailable("unavailable", "gone")

        bench.append(*[f"k{n}" for n in range(50)])
        runner, source = bench.runner(Diary(away))
        polled: list[int] = []
        poll = source.poll

        async def counted(*, timeout_s: float, records_max: int) -> Sequence[Record]:
            records = await poll(timeout_s=timeout_s, records_max=records_max)
            polled.append(len(records))
            return records

        source.poll = counted  # type: ignore[method-assign]  # counts, and passes on
        async with running(runner):
            await asyncio.sleep(10)
            polled.clear()
            bench.append("one more")
            await asyncio.sleep(60)

        assert len(polled) >= 60 / KeyedPolicy().poll_timeout_s * 0.9
        assert sum(polled) == 0

    run_virtual(scenario())


@pytest.mark.rule("C3")
def test_what_is_finished_is_committed_once_in_an_interval() -> None:
    """Not at every record and not at the end alone: while records flow, a commit a second, of what is finished."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)
        runner, _ = bench.runner(Diary(done))
        async with running(runner):
            for _ in range(100):
                bench.append("a")
                await asyncio.sleep(0.1)
            commits, committed = len(bench.broker.commits), bench.committed()

        assert 9 <= commits <= 11
        assert 85 <= committed <= 100

    run_virtual(scenario())


@pytest.mark.rule("C3")
def test_bytes_are_bounded() -> None:
    """Large records fill the window by their bytes: no more is read than the limit and one poll."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def never(record: Record) -> Outcome:
            await asyncio.sleep(1e6)
            return Done()

        for number in range(100):
            bench.append(f"k{number}", value=b"x" * 1000)
        policy = KeyedPolicy(bytes_max=10_000, poll_records_max=5, handler_timeout_s=1e7)
        runner, source = bench.runner(Diary(never), policy=policy)
        async with running(runner):
            await asyncio.sleep(60)
            position = source.position(PARTITION)

        assert position == 10

    run_virtual(scenario())


@pytest.mark.rule("C2", "P7")
@pytest.mark.parametrize("crowd", ["its own key", "other keys"])
def test_a_failing_record_does_not_hold_up_a_crowded_partition(crowd: str) -> None:
    """Head of line: a record that waits for another attempt while the window is all but full of what waits behind it,
    or of what is finished behind it, is given up on at once. Without a crowd it has its whole ladder.
    """

    async def scenario() -> None:
        bench = make_bench(partitions=1)

        async def decide(record: Record) -> Outcome:
            return Rejected("bug", retry=True) if record.value == b"0" else Done()

        bench.append("bad", *(["bad"] if crowd == "its own key" else ["good"]) * 199)
        waits, finished = KeyedPolicy(window_records_max=100), KeyedPolicy(window_span_max=100)
        policy = replace(waits if crowd == "its own key" else finished, poll_records_max=10)
        runner, _ = bench.runner(Diary(decide), policy=policy)
        async with running(runner):
            await asyncio.sleep(3)
            buried, committed = len(bench.broker.records(DLQ)), bench.committed()

        assert (buried, committed) == (1, 200)

    run_virtual(scenario())


@pytest.mark.rule("C1", "C2")
def test_who_was_never_rejected_is_not_given_up_on() -> None:
    """A crowd behind a record whose dependency is away, or whose handler is slow, is no verdict on the record."""

    async def scenario() -> None:
        bench = make_bench(partitions=1)
        away = True

        async def decide(record: Record) -> Outcome:
            if away:
                raise Unavailable("unavailable", "gone")
            return Done()

        bench.append(*["k"] * 500)
        policy = KeyedPolicy(window_records_max=100, window_span_max=100, poll_records_max=10)
        runner, _ = bench.runner(Diary(decide), policy=policy)
        async with running(runner):
            await asyncio.sleep(600)
            away = False
            await asyncio.sleep(60)

        assert bench.broker.records(DLQ) == []
        assert bench.committed() == 500

    run_virtual(scenario())


@pytest.mark.rule("C1", "P7")
def test_ready_again_when_there_is_nothing_left_to_ask_with() -> None:
    """A dependency is away, and a rebalance hands the record that would ask it to another member, which finishes it:
    the first one has nothing to do and nothing to find out, and says so; its next record tells the truth.
    """

    async def scenario() -> None:
        bench = make_bench(partitions=1)
        away = True

        async def decide(record: Record) -> Outcome:
            if away:
                raise Unavailable("unavailable", "gone")
            return Done()

        bench.append("a")
        runner, _ = bench.runner(Diary(decide))
        async with running(runner):
            await asyncio.sleep(5)
            while_away = bench.ready[-1]
            bench.broker.committed[GROUP][PARTITION] = 1  # as the other member did
            await bench.broker.rebalance(GROUP)
            await asyncio.sleep(5)
            idle = bench.ready[-1]
            bench.append("b")
            await asyncio.sleep(5)
            asked_again = bench.ready[-1]
            away = False
            await asyncio.sleep(5)
            at_last = bench.ready[-1]

        assert while_away == asked_again == (False, "a dependency is away")
        assert idle == at_last == (True, "")
        assert bench.committed() == 2

    run_virtual(scenario())


@pytest.mark.rule("C3")
def test_a_topic_that_was_created_anew_is_read_from_its_beginning() -> None:
    """Offsets below those seen, at a time that is news, are records of another log: none is dropped, and the old
    log's position is not committed to the new one. A repeat of an old record is still no news.
    """

    async def scenario() -> None:
        bench = make_bench(partitions=1)
        diary = Diary(done)
        runner, source = bench.runner(diary)
        async with running(runner):
            bench.append(*"abcdef")
            await asyncio.sleep(5)
            source.seek(PARTITION, 3)
            await asyncio.sleep(5)
            repeated = len(diary.seen) - 6
            bench.broker.logs[PARTITION].clear()
            bench.append("g", "h", value=b"new")
            source.seek(PARTITION, 0)  # as the library does when its position is beyond the end
            await asyncio.sleep(5)

        assert repeated == 0
        assert [record.key for _, record in diary.seen[6:]] == [b"g", b"h"]
        assert bench.committed() == 2

    run_virtual(scenario())
