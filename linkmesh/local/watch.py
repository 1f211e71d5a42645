"""Keep one process alive: started again after a crash, with growing pauses; left alone when a person stopped it."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal, Protocol

import psutil

from chassis.clock import sleep_until_stop
from chassis.lifecycle import EXIT_CONFIG
from linkmesh.local.errors import LocalError

Report = Callable[[str], None]
State = Literal["running", "unready", "paused", "stopped", "crashed", "failed"]
_LOOK_S = 0.1
_STABLE_S = 10.0  # up for so long: the next crash counts as the first
_FIRST_DELAY_S, _DELAY_MAX_S = 0.5, 10.0


class Member(Protocol):
    """An engine or a service, as the supervisor sees it."""

    @property
    def name(self) -> str:
        """Its name, the same as in logs and pid files."""

    @property
    def pid(self) -> int | None:
        """None when it does not run."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""

    async def is_ready(self) -> bool:
        """Whether it serves. Ends within seconds."""

    async def launch(self) -> None:
        """Start the process. Raises LocalError."""

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises LocalError."""

    async def stop(self) -> None:
        """End it well, or by force; returns when it is gone."""

    def kill(self) -> None:
        """kill -9; returns when it is gone."""

    def pause(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""


def restart_delay_s(crashes: int) -> float:
    """Return how long to wait before the next start: 0.5 s after the first crash in a row, doubling up to 10 s."""
    return float(min(_DELAY_MAX_S, _FIRST_DELAY_S * 2 ** max(0, crashes - 1)))


class Watch:
    """A component that watches one member. `held` tells that it is down because a person wants it so."""

    def __init__(self, member: Member, report: Report) -> None:
        self.member = member
        self.restarts = 0
        self.held = False
        self._failed = False
        self._report = report

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until stop is set; then leave the member as it is."""
        crashes, up_since = 0, time.monotonic()
        while not await sleep_until_stop(stop, _LOOK_S):
            if self.held or self._failed or self.member.running:
                continue
            crashes = 1 if time.monotonic() - up_since > _STABLE_S else crashes + 1
            if not await self._start_again(stop, crashes):
                continue
            up_since = time.monotonic()

    async def state(self) -> State:
        """Tell how it is."""
        pid = self.member.pid
        if pid is None:
            return "stopped" if self.held else "failed" if self._failed else "crashed"
        try:
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                return "paused"
        except psutil.Error:
            return "crashed"
        return "running" if await self.member.is_ready() else "unready"

    async def hold(self) -> None:
        """Stop it and leave it down until `release`."""
        self.held = True
        await self.member.stop()

    def hold_killed(self) -> None:
        """Kill it and leave it down until `release`."""
        self.held = True
        self.member.kill()

    async def release(self) -> None:
        """Start it again and return when it is ready.

        Raises:
            LocalError: it does not come up.
        """
        await self.member.start()
        self.held = self._failed = False

    async def _start_again(self, stop: asyncio.Event, crashes: int) -> bool:
        name, code = self.member.name, self.member.exit_code
        if code == EXIT_CONFIG:
            self._failed = True
            self._report(f"{name} refuses its configuration and stays down; see `linkmesh logs {name}`")
            return False
        delay_s = restart_delay_s(crashes)
        self._report(f"{name} ended ({_how(code)}); it starts again in {delay_s:g} s")
        if await sleep_until_stop(stop, delay_s) or self.held or self.member.running:
            return False  # stopped, or started by a person meanwhile: a second process would be nobody's
        try:
            await self.member.launch()
        except LocalError as error:
            self._report(str(error))
        self.restarts += 1
        return True


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
