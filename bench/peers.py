"""Other servers beside Linkmesh: a script starts one, and it is measured as nginx is.

`--peer name=script` runs `script` with PORT in its environment, in a new folder of its own, which is its HOME, too. It
starts a server on 127.0.0.1:$PORT, prints one line, the URL of a redirect there, and stays (`exec` the server, or wait
for it) until SIGTERM. Its process, with all of its descendants, is what is measured.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from linkmesh.local.ports import free_port

_START_S = 60.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that runs: where it redirects, and its processes."""

    name: str
    url: str
    pids: Sequence[int]


def parse(text: str) -> tuple[str, Path]:
    """The name and the script of `name=script`.

    Raises:
        ValueError: it has not this form, or there is no such script to be run.
    """
    name, _, path = text.partition("=")
    script = Path(path).expanduser().resolve()
    if not name or not path:
        raise ValueError(f"--peer {text}: name=script is wanted")
    if not os.access(script, os.X_OK):
        raise ValueError(f"--peer {text}: {script} is no program")
    return name, script


@contextlib.asynccontextmanager
async def running(name: str, script: Path, folder: Path) -> AsyncIterator[Peer]:
    """Starts a peer, and ends it with everything it started.

    Raises:
        RuntimeError: it ended, or printed no URL in time.
    """
    await asyncio.to_thread(folder.mkdir)
    process = await asyncio.create_subprocess_exec(
        script,
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
        env=dict(os.environ) | {"PORT": str(free_port()), "HOME": str(folder)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None, "it is a pipe"
        url = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                url = (await process.stdout.readline()).decode().strip()
        if not url.startswith("http://"):
            raise RuntimeError(f"{script} printed no URL")
        yield Peer(name, url, processes.family(process.pid))
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await process.wait()
                break
    with contextlib.suppress(ProcessLookupError):  # what it left behind
        os.killpg(process.pid, signal.SIGKILL)
