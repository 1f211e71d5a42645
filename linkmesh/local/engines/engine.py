"""What all engines have in common: a folder, a port, a process, a question that tells whether it is ready."""

import asyncio
import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path

from linkmesh.local.errors import LocalError
from linkmesh.local.java import AotCache
from linkmesh.local.process import POLL_S, ChildProcess, Program

READY_TIMEOUT_S = 60.0  # Kafka recovering its log after a kill on a busy machine: some 15 s
STOP_TIMEOUT_S = 20.0
MAKE_CACHE_TIMEOUT_S = 60.0  # the one stop that also writes an AOT cache: 6-9 s, on a busy machine more


class Engine(ABC):
    """One engine process: data in `<state>/data/<name>`, log in `<state>/logs`, pid file in `<state>/run`."""

    name: str
    aot: AotCache | None = None

    def __init__(self, state: Path, port: int) -> None:
        self.port = port
        self.data = state / "data" / self.name
        self._state = state
        self._process: ChildProcess | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line (after `prepare`)."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Ask the engine whether it serves."""

    async def prepare(self) -> None:  # noqa: B027 - most engines need nothing
        """Make ready what the command needs (files, formatted storage). Blocking work goes to a thread."""

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.running

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it runs."""
        return self._process.exit_code if self._process else None

    async def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start it and return when it is ready; a call while it runs waits for readiness only.

        Raises:
            LocalError: it ended, or was not ready in time; the error shows the end of its log.
        """
        if not self.running:
            await self.launch()
        await self._wait_ready(timeout_s)

    async def launch(self) -> None:
        """Start the process; do not wait until it is ready.

        Raises:
            LocalError: its files cannot be fetched or prepared.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        await self.prepare()
        self._process = ChildProcess(self._program())
        self._process.start()

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
        if self.aot is not None:
            self.aot.drop()

    def pause(self) -> None:
        """SIGSTOP: it hangs, its sockets stay open."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.resume()

    async def stop(self) -> None:
        """End it well (SIGTERM), or by force when it takes too long."""
        if self._process is None:
            return
        making = self.aot is not None and self.aot.to_be_made
        ended = await self._process.stop(MAKE_CACHE_TIMEOUT_S if making else STOP_TIMEOUT_S)
        if self.aot is not None:
            self.aot.keep() if ended else self.aot.drop()

    def _program(self) -> Program:
        return Program(
            name=self.name,
            command=self.command(),
            environment={k: v for k, v in os.environ.items() if not k.startswith("LINKMESH_")},
            folder=self.data,
            log=self._state / "logs" / f"{self.name}.log",
            pid_file=self._state / "run" / f"{self.name}.pid",
            death_signal=signal.SIGTERM,  # an engine left alone closes its files and goes
        )

    async def _wait_ready(self, timeout_s: float) -> None:
        process = self._process
        assert process is not None, "only called after the start"
        deadline = time.monotonic() + timeout_s
        while process.running and time.monotonic() < deadline:
            if await self.is_ready():
                return
            await asyncio.sleep(POLL_S)
        how = "is not ready" if process.running else f"ended with {process.exit_code}"
        tail = process.log_tail()
        with contextlib.suppress(OSError):
            self.kill()
        raise LocalError(f"{self.name} {how}; the end of its log:\n{tail}", f"see {process.program.log}")
