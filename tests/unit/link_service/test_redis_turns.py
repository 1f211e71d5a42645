"""Commands of one turn in one pipeline: each caller gets its own reply, and nobody is left waiting."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from chassis.errors import Unavailable
from chassis.task_room import TaskRoom
from link_service.adapters import redis_turns
from link_service.adapters.redis_turns import RedisTurns
from tests.fakes.kafka_time import run_virtual


class EchoLine:
    """A line whose reply to a command is its last word; `bad` is refused, `lost` gets no answer."""

    def __init__(self) -> None:
        self.pipelines: list[int] = []
        self.takes_s = 0.0
        self.broken = False

    async def ask_all(self, commands: Sequence[Sequence[object]]) -> list[object]:
        """The replies, in order, each failure a value."""
        self.pipelines.append(len(commands))
        await asyncio.sleep(self.takes_s)
        if self.broken:
            raise ZeroDivisionError
        told: dict[object, object] = {"bad": ResponseError("bad"), "lost": Unavailable("unavailable", "Lost.")}
        return [told.get(command[-1], command[-1]) for command in commands]


Scenario = Callable[[RedisTurns, EchoLine], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """Runs a scenario in virtual time."""

    async def main() -> None:
        async with TaskRoom() as room:
            line = EchoLine()
            await scenario(RedisTurns(cast("Any", line), room), line)

    run_virtual(main())


@pytest.mark.rule("R7")
def test_a_turn_is_a_pipeline_and_each_caller_has_its_own_reply() -> None:
    """Three hundred at once are three pipelines; a refusal, or an answer that is lost, is its own caller's."""

    async def scenario(turns: RedisTurns, line: EchoLine) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(turns.ask("GET", number)) for number in range(298)]
            with pytest.raises(ResponseError):
                await turns.ask("GET", "bad")
            with pytest.raises(Unavailable):
                await turns.ask("GET", "lost")

        assert [task.result() for task in asked] == list(range(298))
        assert line.pipelines == [128, 128, 43, 1]

    play(scenario)


@pytest.mark.rule("R7", "P5")
def test_pipelines_at_a_time_are_few_and_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while four are under way goes with the next one; beyond the bound Redis is as good as away."""
    monkeypatch.setattr(redis_turns, "_WAITING_MAX", 10)

    async def scenario(turns: RedisTurns, line: EchoLine) -> None:
        line.takes_s = 1.0
        async with asyncio.TaskGroup() as tasks:
            for number in range(14):
                tasks.create_task(turns.ask("GET", number))
                await asyncio.sleep(0.001)
            assert line.pipelines == [1, 1, 1, 1]
            with pytest.raises(Unavailable):
                await turns.ask("GET", "one more")

        assert line.pipelines == [1, 1, 1, 1, 10]

    play(scenario)


@pytest.mark.rule("P5")
def test_who_gives_up_takes_nobody_along_and_a_bug_strands_nobody() -> None:
    """A caller that is cancelled leaves its neighbours their replies; a pipeline that raises is everybody's failure."""

    async def scenario(turns: RedisTurns, line: EchoLine) -> None:
        line.takes_s = 1.0
        async with asyncio.TaskGroup() as tasks:
            first, second = (tasks.create_task(turns.ask("GET", number)) for number in range(2))
            await asyncio.sleep(0.1)
            first.cancel()
        assert second.result() == 1

        line.broken = True
        with pytest.raises(Unavailable):
            await turns.ask("GET", 1)
        line.broken = False
        assert await turns.ask("GET", 2) == 2

    play(scenario)
