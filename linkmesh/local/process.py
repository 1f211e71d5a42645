"""One child process: started in its own session, logged to a file, found again by its pid file, never left behind.

Not bound to an event loop: tests start it in one loop and stop it in another.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from linkmesh.local.errors import LocalError

POLL_S = 0.05
_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: `command` with exactly `environment`, in `folder`; `log` is appended to, `pid_file` replaced."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    pid_file: Path
    death_signal: int = signal.SIGKILL  # what Linux sends it when our process dies without a word


class ChildProcess:
    """A running `Program`. Start it from a thread that outlives it (see launch.py)."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start the program and write its pid file. Returns at once; readiness is the caller's question.

        Raises:
            LocalError: the program cannot be started.
        """
        program = self.program
        program.log.parent.mkdir(parents=True, exist_ok=True)
        program.pid_file.parent.mkdir(parents=True, exist_ok=True)
        program.folder.mkdir(parents=True, exist_ok=True)
        launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(int(program.death_signal))]
        with program.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._popen = subprocess.Popen(
                    [*launch, *program.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(program.environment),
                    cwd=program.folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise LocalError(f"cannot start {program.name}: {error}") from error
        write_pid_file(program.pid_file, self._popen.pid)

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._popen.pid if self._popen is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it runs (a zombie does not)."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by that signal); None while it runs or before it started."""
        return None if self._popen is None else self._popen.poll()

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines it wrote since its last start."""
        with contextlib.suppress(OSError), self.program.log.open("rb") as log:
            log.seek(max(self._log_start, self.program.log.stat().st_size - 32_768))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def kill(self) -> None:
        """End it at once (SIGKILL, the whole session); returns when it is gone."""
        if self._popen is None:
            return
        if self.running:
            self._signal_group(signal.SIGKILL)
        self._popen.wait(timeout=10)
        self.program.pid_file.unlink(missing_ok=True)

    def pause(self) -> None:
        """Freeze it (SIGSTOP) until `resume`."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    async def stop(self, grace_s: float) -> bool:
        """Ask it to end (SIGTERM), wait up to `grace_s` seconds, then kill. Returns whether it ended by itself."""
        if self._popen is None:
            return True
        if self.running:
            self.resume()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, signal.SIGTERM)
        ended = await self.wait(grace_s)
        self.kill()
        return ended

    async def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for its end. Returns whether it has ended."""
        deadline = time.monotonic() + timeout_s
        # Nothing portable turns the end of a child into an event without owning the whole process's SIGCHLD.
        while self.running and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return not self.running

    def _signal_group(self, number: signal.Signals) -> None:
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a zombie's group
                os.killpg(self._popen.pid, number)


def write_pid_file(path: Path, pid: int) -> None:
    """Record a process and when it started, so that its number in other hands is not mistaken for it."""
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(pid).create_time()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"pid": pid, "started": started}))
        temporary.replace(path)


def process_of(pid_file: Path) -> psutil.Process | None:
    """Return the living process a pid file speaks of, or None (gone, or the number now belongs to another)."""
    try:
        recorded = json.loads(pid_file.read_text())
        process = psutil.Process(recorded["pid"])
        same = abs(process.create_time() - recorded["started"]) < 0.01  # both read from one kernel clock
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def end_strays(folder: Path, grace_s: float = 10.0) -> list[str]:
    """End every process that the pid files in `folder` speak of (SIGTERM, then SIGKILL), and remove the files.

    Returns the names of those that still ran.
    """
    found = {path: process for path in sorted(folder.glob("*.pid")) if (process := process_of(path))}
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            process.resume()
            process.terminate()
    _, stubborn = psutil.wait_procs(list(found.values()), timeout=grace_s)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    for path in folder.glob("*.pid"):
        path.unlink(missing_ok=True)
    return [path.stem for path in found]
