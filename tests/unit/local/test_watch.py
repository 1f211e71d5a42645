"""Restarts: after a crash, with growing pauses; never against a person's will."""

import asyncio
import os
from collections.abc import Callable

import pytest

from chassis.lifecycle import EXIT_CONFIG
from linkmesh.local.errors import LocalError
from linkmesh.local.watch import Watch, restart_delay_s


class FakeMember:
    """A process that dies when told to."""

    name = "thing"

    def __init__(self) -> None:
        self.running = True
        self.exit_code: int | None = None
        self.launches = 0
        self.refuse = 0  # launches that fail

    @property
    def pid(self) -> int | None:
        return os.getpid() if self.running else None

    def die(self, code: int) -> None:
        self.running, self.exit_code = False, code

    async def is_ready(self) -> bool:
        return self.running

    async def launch(self) -> None:
        self.launches += 1
        if self.launches <= self.refuse:
            raise LocalError("no disk")
        self.running, self.exit_code = True, None

    async def start(self) -> None:
        await self.launch()

    async def stop(self) -> None:
        self.die(0)

    def kill(self) -> None:
        self.die(-9)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def watched(scenario: Callable[[Watch, FakeMember, list[str]], object]) -> list[str]:
    """Run a scenario (a coroutine function) beside a watch, and return what was reported."""
    lines: list[str] = []

    async def run() -> None:
        member = FakeMember()
        watch, stop = Watch(member, lines.append), asyncio.Event()
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch.run(stop))
            await scenario(watch, member, lines)  # type: ignore[misc]  # a coroutine function, awaited here
            stop.set()

    asyncio.run(run())
    return lines


async def until(holds: Callable[[], bool]) -> None:
    """Poll; the watch's own timeout ends it."""
    while not holds():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("crashes", "delay_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 10.0), (60, 10.0)])
def test_pauses_double_up_to_ten_seconds(crashes: int, delay_s: float) -> None:
    """0.5 s after the first crash in a row, then twice as long each time, at most 10 s."""
    assert restart_delay_s(crashes) == delay_s


@pytest.mark.rule("P7")
def test_a_crashed_member_is_started_again() -> None:
    """P7: no person is needed after a crash; the report says how it ended."""

    async def scenario(watch: Watch, member: FakeMember, lines: list[str]) -> None:
        member.die(-9)
        await until(lambda: watch.restarts == 1)
        assert member.running
        assert await watch.state() == "running"

    [line] = watched(scenario)

    assert line == "thing ended (signal 9); it starts again in 0.5 s"


def test_a_start_that_fails_is_tried_again_later() -> None:
    """A launch that cannot be made (no disk) counts as a crash: said, and tried again after a longer pause."""

    async def scenario(watch: Watch, member: FakeMember, lines: list[str]) -> None:
        member.refuse = 1
        member.die(1)
        await until(lambda: member.running)
        assert member.launches == 2

    lines = watched(scenario)

    assert lines == [
        "thing ended (exit code 1); it starts again in 0.5 s",
        "no disk",
        "thing ended (exit code 1); it starts again in 1 s",
    ]


def test_a_refused_configuration_is_not_tried_again() -> None:
    """Exit code 78 means that restarting will not help; a person's start tries once more."""

    async def scenario(watch: Watch, member: FakeMember, lines: list[str]) -> None:
        member.die(EXIT_CONFIG)
        await until(lambda: len(lines) == 1)
        assert await watch.state() == "failed"
        assert member.launches == 0
        await watch.release()
        assert await watch.state() == "running"

    assert "refuses its configuration" in watched(scenario)[0]


def test_a_held_member_stays_down_until_released() -> None:
    """What a person stopped or killed for good is no crash."""

    async def scenario(watch: Watch, member: FakeMember, lines: list[str]) -> None:
        await watch.hold()
        assert await watch.state() == "stopped"
        await watch.release()
        watch.hold_killed()
        assert await watch.state() == "stopped"
        await watch.release()
        assert member.running

    assert watched(scenario) == []


@pytest.mark.rule("P7")
def test_who_starts_a_crashed_member_gets_one_process() -> None:
    """A start by hand within the pause after a crash is the start: the watch adds no second process."""

    async def scenario(watch: Watch, member: FakeMember, lines: list[str]) -> None:
        member.die(-9)
        await until(lambda: len(lines) == 1)
        await watch.release()
        pause_over = asyncio.get_running_loop().time() + restart_delay_s(1) + 0.2
        await until(lambda: asyncio.get_running_loop().time() > pause_over)
        assert (member.launches, watch.restarts) == (1, 0)

    watched(scenario)
