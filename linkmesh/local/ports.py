"""Free ports that two runs on one machine never both take.

Asking the kernel for port 0 and closing the socket is a race: the number may go to anybody before the engine binds it.
So ports come from below the ephemeral range (no outgoing connection ever takes them), and a lock file per number,
held until this process ends, keeps other runs of ours away.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

import psutil

# Linux hands out 32768.. to outgoing connections, macOS 49152..; the low end stays clear of well-known services.
FIRST_PORT, LAST_PORT = 15_000, 32_000
_ATTEMPTS_MAX = 500
_held: list[int] = []  # descriptors of the lock files: a lock lives as long as its descriptor


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on and no other run of ours was given.

    Raises:
        RuntimeError: no free port was found in many attempts (something is eating the range).
    """
    folder = Path(tempfile.gettempdir()) / f"linkmesh-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for _ in range(_ATTEMPTS_MAX):
        port = random.randint(FIRST_PORT, LAST_PORT)  # noqa: S311 - spreads runs apart; guards nothing
        if is_free(port) and _reserve(folder / str(port)):
            return port
    raise RuntimeError(f"no free port between {FIRST_PORT} and {LAST_PORT}")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback port now (sockets in TIME_WAIT do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def who_listens(port: int) -> str:
    """Return the name and id of the process that holds a port, as far as this user may know it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


def _reserve(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _held.append(descriptor)
        return True
    os.close(descriptor)
    return False
