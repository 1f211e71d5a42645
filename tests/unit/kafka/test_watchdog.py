"""What ends a consumer that no longer polls: the task first, the thread when that does not help."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from chassis.kafka.checkpointed import CheckpointedPolicy, CheckpointedRunner
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Position, Record
from chassis.kafka.watchdog import EXIT_STUCK, ConsumerStuckError, Watchdog
from tests.fakes.kafka import FakeSource
from tests.fakes.kafka_keyed import GROUP, TOPIC, Bench, Diary, done, make_bench, running
from tests.fakes.kafka_time import run_virtual

ROOT = Path(__file__).parents[3]


async def never(*, timeout_s: float, records_max: int) -> Sequence[Record]:
    """A poll that does not come back."""
    await asyncio.sleep(1e9)
    return ()


def gets_stuck(source: FakeSource, after_s: float) -> None:
    """The source answers for a while, then no poll ends any more."""
    asyncio.get_running_loop().call_later(after_s, setattr, source, "poll", never)


@pytest.mark.rule("C3", "P7")
def test_a_consumer_that_no_longer_polls_goes_unready_and_ends() -> None:
    """The poll that never ends is noticed: first readiness goes, then the component raises, which ends its process."""

    async def scenario() -> None:
        bench = make_bench()
        runner, source = bench.runner(Diary(done), policy=KeyedPolicy(silence_max_s=60))
        gets_stuck(source, after_s=100)
        before = list(bench.ready)
        with pytest.raises(ExceptionGroup) as caught:
            await runner.run(asyncio.Event())
        ended_at = bench.broker.clock.monotonic()

        assert before == []
        assert (True, "") in bench.ready
        told = [why for met, why in bench.ready if not met and "did not poll" in why]
        assert told[0] == "the consumer did not poll for 31 s"
        assert caught.group_contains(ConsumerStuckError)
        assert 160 <= ended_at <= 163

    run_virtual(scenario())


@pytest.mark.rule("C3", "C4")
def test_a_checkpointed_consumer_is_watched_too() -> None:
    """The same for the other runner; it raises the error itself, as it raises those of its handler."""

    class Handler:
        async def assigned(self, partitions: object) -> Position:
            return {}

        async def handle(self, records: Sequence[Record]) -> None:
            return

        async def revoked(self, partitions: object) -> Position:
            return {}

        async def checkpoint(self) -> Position:
            return {}

    async def scenario() -> None:
        bench = make_bench()
        source = FakeSource(bench.broker, group=GROUP, topics=[TOPIC])
        runner = CheckpointedRunner(
            source=source,
            handler=Handler(),
            clock=bench.broker.clock,
            group=GROUP,
            set_ready=lambda met, why: bench.ready.append((met, why)),
            policy=CheckpointedPolicy(silence_max_s=20),
        )
        gets_stuck(source, after_s=5)
        with pytest.raises(ConsumerStuckError):
            await runner.run(asyncio.Event())

        assert bench.ready[-1] == (False, "the consumer did not poll for 20 s")

    run_virtual(scenario())


async def quiet_hours(bench: Bench) -> None:
    """Three hours without a record, without a broker, and with a breaker that is open."""
    await asyncio.sleep(3600)
    bench.broker.away = True
    await asyncio.sleep(3600)
    bench.broker.away = False
    await asyncio.sleep(3600)


@pytest.mark.rule("C3")
def test_whoever_polls_lives() -> None:
    """Nothing to read, or a broker that is away for an hour, is no reason to end."""

    async def scenario() -> None:
        bench = make_bench()
        runner, _ = bench.runner(Diary(done))
        async with running(runner):
            await quiet_hours(bench)
            told = bench.ready[-1]

        assert told == (True, "")
        assert not any("did not poll" in why for _, why in bench.ready)

    run_virtual(scenario())


BLOCKED = """
import asyncio, time
from chassis.kafka.watchdog import Watchdog, end_process

async def main():
    dog = Watchdog(silence_max_s=0.2, beat_s=0.1, end=end_process)
    with dog.guarded():
        dog.polled()
        blocks_the_loop()

def blocks_the_loop():
    time.sleep(60)

asyncio.run(main())
"""


@pytest.mark.rule("C3", "P7")
def test_a_loop_that_does_not_turn_is_ended_by_the_thread() -> None:
    """A handler that never gives the loop back stops heartbeats and answers: the process ends, saying where it hung."""
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert ended.returncode == EXIT_STUCK
    assert "did not poll" in ended.stderr
    assert "blocks_the_loop" in ended.stderr


def test_the_thread_ends_with_the_consumer() -> None:
    """A consumer that was stopped, or cancelled, leaves nobody behind who would end the process later."""
    ended: list[bool] = []
    dog = Watchdog(silence_max_s=0.02, beat_s=0.01, end=lambda: ended.append(True))

    async def cancelled() -> None:
        async with asyncio.timeout(0.01):
            with dog.guarded():
                dog.polled()
                await asyncio.sleep(60)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await cancelled()
        await asyncio.sleep(0.2)

    asyncio.run(scenario())

    assert ended == []
