"""A peer's script is run as it is documented, and nothing of it is left behind."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from bench.peers import Peer, running
from linkmesh.local.probes import http_status

CONNECT = "import socket, os; socket.create_connection(('127.0.0.1', int(os.environ['PORT'])))"
SERVER = f"""#!/bin/sh
{sys.executable} -m http.server --bind 127.0.0.1 $PORT >server.log 2>&1 &
while ! {sys.executable} -c "{CONNECT}" 2>/dev/null
do sleep 0.05; done
echo "http://127.0.0.1:$PORT/somewhere"
wait
"""


def script_of(folder: Path, text: str) -> Path:
    """A program."""
    script = folder / "start"
    script.write_text(text)
    script.chmod(0o755)
    return script


def test_the_server_runs_and_ends_with_everything_it_started(tmp_path: Path) -> None:
    """It listens on the port it was given, all of its processes are known, and none outlives it."""

    async def run() -> tuple[Peer, int]:
        async with running("other", script_of(tmp_path, SERVER), tmp_path / "home") as peer:
            port = int(peer.url.split(":")[2].split("/")[0])
            return peer, await http_status(port, "/")

    peer, status = asyncio.run(run())

    assert (peer.name, status) == ("other", 200)
    assert len(peer.pids) >= 2  # the shell and the server
    assert (tmp_path / "home" / "server.log").exists()  # its folder is its own
    psutil.wait_procs([psutil.Process(pid) for pid in peer.pids if psutil.pid_exists(pid)], timeout=20)
    assert not [pid for pid in peer.pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho listening\nsleep 100\n"])
def test_a_peer_that_does_not_start_is_told_of(text: str, tmp_path: Path) -> None:
    """Whether it ends, or prints something else."""

    async def run() -> None:
        async with running("other", script_of(tmp_path, text), tmp_path / "home"):
            pass

    with pytest.raises(RuntimeError, match="printed no URL"):
        asyncio.run(run())
