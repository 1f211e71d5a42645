"""Work that goes on when its caller has gone."""

import asyncio

import pytest

from chassis.errors import Unavailable
from chassis.task_room import TaskRoom
from tests.fakes.kafka_time import run_virtual


def test_work_outlives_a_caller_that_hangs_up() -> None:
    """A cancelled caller does not cancel the work, and leaving the room waits for it."""
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(5)
        done.append("work")

    async def scenario() -> None:
        async with TaskRoom() as room:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await room.finish(work(), timeout_s=10)
            assert done == []
        assert done == ["work"]

    run_virtual(scenario())


def test_results_and_errors_reach_the_caller() -> None:
    """What the work returns or raises is what `finish` does; a failure hurts nobody else."""

    async def fails() -> None:
        raise ValueError("so it is")

    async def answers() -> int:
        await asyncio.sleep(1)
        return 42

    async def scenario() -> None:
        async with TaskRoom() as room:
            with pytest.raises(ValueError, match="so it is"):
                await room.finish(fails(), timeout_s=1)
            assert await room.finish(answers(), timeout_s=2) == 42
            with pytest.raises(TimeoutError):
                await room.finish(answers(), timeout_s=0.5)

    run_virtual(scenario())


def test_a_full_or_closed_room_takes_nothing() -> None:
    """Work is bounded: beyond the limit, and after the end, it is not begun."""

    async def scenario() -> None:
        async with TaskRoom(tasks_max=1) as room:
            first = room.start(asyncio.sleep(1, "first"), timeout_s=2)
            with pytest.raises(Unavailable):
                await room.finish(asyncio.sleep(1), timeout_s=2)
            assert await first == "first"
            await asyncio.sleep(0)
            assert await room.finish(asyncio.sleep(1, "second"), timeout_s=2) == "second"
        with pytest.raises(Unavailable):
            await room.finish(asyncio.sleep(1), timeout_s=2)

    run_virtual(scenario())


def test_an_error_leaves_the_room_as_it_came() -> None:
    """A failure inside the block ends the work, and is not wrapped into a group."""

    async def scenario() -> None:
        results: list[asyncio.Future[None]] = []

        async def live() -> None:
            async with TaskRoom() as room:
                results.append(room.start(asyncio.sleep(60), timeout_s=100))
                await asyncio.sleep(0)
                raise TimeoutError

        with pytest.raises(TimeoutError):
            await live()
        assert results[0].cancelled()
        assert asyncio.get_running_loop().time() < 1

    run_virtual(scenario())
