"""The lock of a state folder: one system at a time runs there, and others can tell whether one does."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from linkmesh.local.errors import LocalError


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Keep a second supervisor off the same state folder.

    Raises:
        LocalError: there is one.
    """
    path = lock_file(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise already_runs(state) from None
        yield


def is_held(state: Path) -> bool:
    """Whether a supervisor runs in the folder. The file alone tells nothing: one that was killed leaves it behind."""
    try:
        with lock_file(state).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def lock_file(state: Path) -> Path:
    """Return where the lock of a state folder is."""
    return state / "run" / "lock"


def already_runs(state: Path) -> LocalError:
    """Return what a person is told who starts a second one."""
    return LocalError(f"linkmesh already runs in {state}", "linkmesh status, linkmesh down")
