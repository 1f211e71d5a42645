"""Logs in a local directory: one process writes (flock), every file appears whole (fsync, then link or rename).

All writes go through one thread, in order: a write that was given up on can be late, but never later than the next.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from audit.domain.tiles import CHECKPOINT, LogName, Resource
from audit.ports import LogStoppedError
from chassis.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")
_LOCK = ".lock"
_TEMPORARY = ".tmp"
_READERS = 4  # a disk that hangs takes these threads and no more
_TIMEOUT_S = 10.0


class FileLogStorage:
    """The LogStorage port on a directory. A context manager; leaving it gives the lock back."""

    def __init__(self, root: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._root = root
        self._timeout_s = timeout_s
        self._lock: int | None = None
        self._numbers = iter(range(1 << 62))
        self._writer = ThreadPoolExecutor(1, "audit-write")
        self._readers = ThreadPoolExecutor(_READERS, "audit-read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def acquire(self) -> None:
        """Takes the directory's lock and clears what a killed process left half written."""
        await self._write(self._acquire)

    async def read(self, log: LogName, path: str) -> bytes | None:
        """The content of a file."""
        return await self._run(self._readers, _read, self._root / log / path)

    async def names(self, log: LogName, folder: str) -> Sequence[str]:
        """The names in a folder."""
        return await self._run(self._readers, _names, self._root / log / folder)

    async def write(self, log: LogName, resources: Sequence[Resource]) -> None:
        """Writes new files, in order; the last one is durable before this returns, and so are all before it."""
        await self._write(self._create_all, log, resources)

    async def replace_checkpoint(self, log: LogName, expected: bytes | None, new: bytes) -> None:
        """Replaces the checkpoint by rename."""
        await self._write(self._replace, log, expected, new)

    async def forget(self, log: LogName, folders: Sequence[str]) -> None:
        """Removes folders."""
        await self._write(_remove, [self._root / log / folder for folder in folders])

    async def _write(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run(self._writer, step, *args, **kwargs)

    async def _run(self, threads: ThreadPoolExecutor, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(threads, lambda: step(*args, **kwargs))
        except OSError as exc:  # TimeoutError is one, too
            why = exc.strerror or "it does not answer"
            raise Unavailable("unavailable", f"The audit directory cannot be used: {why}.", retry_after_s=1) from exc

    def _acquire(self) -> None:
        if self._lock is not None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(descriptor)
            raise Unavailable("unavailable", "Another process writes the audit logs.", retry_after_s=1) from exc
        self._lock = descriptor
        shutil.rmtree(self._root / _TEMPORARY, ignore_errors=True)
        (self._root / _TEMPORARY).mkdir()

    def _create_all(self, log: LogName, resources: Sequence[Resource]) -> None:
        self._check_lock()
        folders: dict[Path, None] = {}
        for resource in resources:
            target = self._root / log / resource.path
            folders |= dict.fromkeys(self._make_folder(target.parent))
            with self._temporary(resource.data) as temporary:
                try:
                    os.link(temporary, target)  # unlike a rename, it never takes another file's place
                except FileExistsError as exc:
                    if target.read_bytes() != resource.data:
                        raise LogStoppedError(log, f"{resource.path} is there with another content") from exc
        for folder in folders:
            _sync_folder(folder)

    def _replace(self, log: LogName, expected: bytes | None, new: bytes) -> None:
        self._check_lock()
        target = self._root / log / CHECKPOINT
        found = _read(target)
        if found not in (expected, new):
            raise LogStoppedError(log, "another process has written the checkpoint")
        folders = self._make_folder(target.parent)
        if found != new:
            with self._temporary(new) as temporary:
                temporary.replace(target)
        for folder in folders:  # also on a repeat: the first try may have ended before this
            _sync_folder(folder)

    def _make_folder(self, folder: Path) -> list[Path]:
        """Makes a folder; returns those whose listing has to become durable, children first."""
        if folder.is_dir():
            return [folder]
        folder.mkdir(parents=True, exist_ok=True)
        return [folder, *(parent for parent in folder.parents if parent.is_relative_to(self._root))]

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        """A durable file that is in nobody's way; gone afterwards, unless it was renamed."""
        path = self._root / _TEMPORARY / str(next(self._numbers))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _check_lock(self) -> None:
        if self._lock is None:
            raise Unavailable("unavailable", "The audit directory is not ours to write.", retry_after_s=1)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
