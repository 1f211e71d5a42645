"""Spools on disk: a folder for each start of a gateway, locked for as long as the process lives, with segments in it.

The lock is what tells the living from the dead [S1]: a folder whose lock can be had belongs to nobody, and whoever has
the lock drains it. A segment's bytes are all allocated before the first click is written into it [S2]: in a sparse file
on a full disk a write through the map would end the process.
"""

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

from gateway.domain.spools import spool_began_ms

_LOCK = "lock"
_SUFFIX = ".segment"
_HALF_MADE_MS = 60_000  # a folder that is not ready by then belonged to a process that died at its start
_POPULATE_WRITE = 23  # madvise of Linux 5.14: pages that can be written without a fault
_NO_PAGES = {errno.EFAULT, errno.ENOMEM}  # what a write would be told by a signal
_POPULATE_BYTES = 64 << 10  # at a time, since others wait meanwhile for the interpreter
_PAGE = mmap.PAGESIZE
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment that may be written to: `size` bytes, all of them there."""

    path: Path
    size: int
    map: mmap.mmap


class Budget:
    """Bytes of disk that all segments of this process may have together [S6]. Threads may share it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self.used = 0

    def take(self, size: int, *, anyway: bool = False) -> bool:
        """Takes so many bytes, unless there are fewer. `anyway`: they are used already."""
        with self._lock:
            if not anyway and self.used + size > self._bytes_max:
                return False
            self.used += size
            return True

    def give(self, size: int) -> None:
        """Gives bytes back."""
        with self._lock:
            self.used -= size


class Folder:
    """A folder of segments whose lock this process has."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._numbers = count(1)

    @classmethod
    def create(cls, root: Path, name: str) -> Self:
        """A new folder. It gets its name when it is locked, so that nobody takes it for a dead one before.

        Raises:
            OSError: the root cannot be written to.
        """
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = root / f".{name}"
        hidden.mkdir(mode=0o700)
        lock = _lock(hidden)
        assert lock is not None, "nobody else knows its name"
        path = hidden.rename(root / name)
        return cls(path, lock)

    @classmethod
    def claim(cls, path: Path) -> Self | None:
        """The folder of a process that is gone; None: its process lives, or somebody else was faster."""
        with contextlib.suppress(FileNotFoundError):
            lock = _lock(path)
            return None if lock is None else cls(path, lock)
        return None

    def segments(self) -> list[Path]:
        """The files of all its segments."""
        return [path for path in self.path.iterdir() if path.suffix == _SUFFIX]

    def allocate(self, size: int) -> SegmentFile:
        """Makes a segment of zeros, ready to be written. Threads may call this.

        Raises:
            OSError: there is no room, or the disk fails.
        """
        path = self.path / f"{next(self._numbers):06d}{_SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(file, size)
            mapped = mmap.mmap(file, size)
            _populate(mapped)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(file)
        return SegmentFile(path, size, mapped)

    def leave(self) -> None:
        """Gives the lock back; without segments the folder goes, too."""
        with contextlib.suppress(OSError):  # it is gone already; or somebody looks at it just now, and will remove it
            if not self.segments():
                (self.path / _LOCK).unlink(missing_ok=True)
                self.path.rmdir()
        os.close(self._lock)


def open_segment(path: Path) -> mmap.mmap:
    """The whole of a segment, to be read, and its marks to be written.

    Raises:
        OSError: it cannot be read.
    """
    file = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(file, 0)
    finally:
        os.close(file)


def abandoned(root: Path, now_ms: int) -> list[Folder]:
    """The folders of processes that are gone, oldest first; they are ours from now on."""
    found: list[Folder] = []
    for path in sorted(path for path in root.iterdir() if path.is_dir()):
        name = path.name.removeprefix(".")
        with contextlib.suppress(ValueError):  # not ours
            began_ms = spool_began_ms(name)
            if name == path.name or now_ms - began_ms > _HALF_MADE_MS:
                found += _claimed(path)
    return found


def _claimed(path: Path) -> list[Folder]:
    """The folder, if it can be had. One that cannot be looked into must not keep us from the others, and from giving
    back what we have of them already."""
    try:
        folder = Folder.claim(path)
    except OSError as error:
        logger.warning("the clicks in %s are left alone: %s", path, error)
        return []
    return [] if folder is None else [folder]


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None: another one does.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    path = folder / _LOCK
    lock, ours = os.open(path, os.O_RDWR | os.O_CREAT, 0o600), False
    try:
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(lock).st_ino == path.stat().st_ino  # not that of a folder that was just removed
    finally:
        if not ours:
            os.close(lock)
    return lock if ours else None


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(_POPULATE_BYTES)  # macOS
    for at in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - at], at)


def _populate(mapped: mmap.mmap) -> None:
    """Has all pages there before the first click needs one.

    Raises:
        OSError: the system has none to write to, whatever it reserved: a write would end the process.
    """
    size = len(mapped)
    for at in range(0, size, _POPULATE_BYTES):
        try:
            mapped.madvise(_POPULATE_WRITE, at, min(_POPULATE_BYTES, size - at))
        except (OSError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno in _NO_PAGES:
                raise
            for page in range(at, min(at + _POPULATE_BYTES, size), _PAGE):  # an older kernel, or another system
                mapped[page] = 0
