"""CPU time and memory of processes, as the kernel accounts them; and where they may run."""

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_NICE = 10  # a tenth of what the load generator gets; with less, heartbeats would not get through
_LOOK_S = 0.2
_IDLE_SHARE = 0.06  # of a core: one tick of the kernel's clock more or less, for heartbeats
_PAGE_MB = resource.getpagesize() / 2**20


def family(pid: int) -> list[int]:
    """A process and all of its descendants."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def pin(pids: Iterable[int], core: int) -> None:
    """Lets these processes, with all of their threads, run on one core only."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def yield_to_load(pids: Iterable[int]) -> None:
    """Lets these processes, with all of their threads, run where the load generator leaves time: with a backlog they
    want its core for themselves, and it would measure how rarely it is awake."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)
        with contextlib.suppress(OSError):  # each is a session of its own, and Linux may weigh sessions, not processes
            Path(f"/proc/{pid}/autogroup").write_text(str(_NICE))


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of CPU (user and system) that these processes have used so far."""
    return sum(user_and_system_s(pids))


def user_and_system_s(pids: Iterable[int]) -> tuple[float, float]:
    """The same in two."""
    user = system = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11]) * _TICK_S
        system += int(fields[12]) * _TICK_S
    return user, system


async def quiet(pids: Iterable[int], *, patience_s: float = 30.0) -> bool:
    """Returns when these processes have nothing to do any more: what they put off (clicks to be sent) belongs to the
    work that it is left from. False: they did not come to rest in time."""
    watched, deadline = list(pids), time.monotonic() + patience_s
    before = cpu_s(watched)
    while time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
        now = cpu_s(watched)
        if now - before <= _IDLE_SHARE * _LOOK_S:
            return True
        before = now
    return False


def resident_mb(pids: Iterable[int]) -> float:
    """Resident memory of these processes in MiB, shared pages counted in each."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB for pid in pids)
