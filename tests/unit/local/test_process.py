"""Child processes: found again by their pid files, never mistaken, never left behind."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from linkmesh.local.process import ChildProcess, Program, end_strays, process_of, write_pid_file

SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def program(folder: Path, command: list[str], name: str = "thing") -> Program:
    return Program(name, command, dict(os.environ), folder, folder / "logs" / name, folder / "run" / f"{name}.pid")


def started(folder: Path, command: list[str]) -> ChildProcess:
    """Start a program and wait until it says that it is up."""
    child = ChildProcess(program(folder, command))
    child.start()
    deadline = time.monotonic() + 10
    while child.log_tail() != "up" and time.monotonic() < deadline:
        time.sleep(0.01)
    return child


def test_a_started_program_runs_with_log_and_pid_file(tmp_path: Path) -> None:
    """The pid file names the very process; its output is in the log; stop ends it well and takes the file away."""
    child = started(tmp_path, SLEEP)
    try:
        found = process_of(tmp_path / "run" / "thing.pid")
        assert found is not None
        assert found.pid == child.pid
        assert os.getsid(found.pid) == found.pid  # its own session: Ctrl-C at the terminal is ours to handle
    finally:
        assert asyncio.run(child.stop(grace_s=10))

    assert not child.running
    assert child.exit_code == -signal.SIGTERM
    assert not (tmp_path / "run" / "thing.pid").exists()


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """Stop waits for its grace, then kills; it tells that the end was not its own. A paused one ends, too."""
    child = started(tmp_path, STUBBORN)
    child.pause()

    ended_by_itself = asyncio.run(child.stop(grace_s=0.2))

    assert not ended_by_itself
    assert child.exit_code == -signal.SIGKILL


def test_a_program_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    """The launcher reports it as the end of the process, with its reason in the log."""
    child = ChildProcess(program(tmp_path, ["/nowhere/thing"]))
    child.start()

    assert asyncio.run(child.wait(10))
    assert child.exit_code == 1
    assert "No such file" in child.log_tail()


def test_children_die_with_their_supervisor(tmp_path: Path) -> None:
    """kill -9 of the process that started them leaves no child (Linux tells the child; elsewhere `down` ends it)."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent died")
    code = f"""
import sys, time
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from tests.unit.local.test_process import program, SLEEP
from linkmesh.local.process import ChildProcess
ChildProcess(program(Path({str(tmp_path)!r}), SLEEP)).start()
print("started", flush=True)
time.sleep(60)
"""
    supervisor = ChildProcess(program(tmp_path, [sys.executable, "-c", code], name="supervisor"))
    supervisor.start()
    deadline = time.monotonic() + 10
    pid_file, log = tmp_path / "run" / "thing.pid", tmp_path / "logs" / "thing"
    while time.monotonic() < deadline and not (log.exists() and "up" in log.read_text() and pid_file.exists()):
        time.sleep(0.01)
    child = process_of(pid_file)
    assert child is not None

    assert supervisor.pid is not None
    os.kill(supervisor.pid, signal.SIGKILL)  # that one only, not its session

    psutil.wait_procs([child], timeout=10)
    supervisor.kill()
    assert process_of(pid_file) is None


def test_a_pid_in_other_hands_is_not_ours(tmp_path: Path) -> None:
    """The number alone proves nothing: the process must have started when the file says, or it is left alone."""
    path = tmp_path / "other.pid"
    path.write_text(json.dumps({"pid": os.getpid(), "started": 12.0}))

    assert process_of(path) is None
    assert end_strays(tmp_path) == []
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "x", "[]", "{}", '{"pid": "x"}'])
def test_a_broken_pid_file_is_nobody(tmp_path: Path, content: str) -> None:
    """A file torn by a crash is like none."""
    path = tmp_path / "torn.pid"
    path.write_text(content)

    assert process_of(path) is None


def test_strays_are_ended_and_named(tmp_path: Path) -> None:
    """What an earlier run left behind is found by its pid file and ended, stubborn or paused."""
    child = started(tmp_path, STUBBORN)
    assert child.pid is not None
    write_pid_file(tmp_path / "run" / "thing.pid", child.pid)

    assert end_strays(tmp_path / "run", grace_s=0.2) == ["thing"]

    assert asyncio.run(child.wait(5))
    child.kill()
