"""The engines' files: fetched once into a user cache, checked against our own checksums, never half there.

Jars come from Maven Central by way of `jgo.maven`, dynoxide from the npm registry by way of `npm pack`; neither needs
a host in this code. Every file is fetched under a temporary name, its SHA-256 compared with the lock file in `locks/`,
and only then moved to its place: what has its final name is whole. A note of the sizes lets each start see by `stat`
alone that nothing was cut since.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from linkmesh.local.errors import LocalError
from linkmesh.local.fetchers import (
    Locked,
    Report,
    fetch_dynoxide,
    fetch_jars,
    fetch_zipkin,
    npm_command,
    why_maven_is_unreachable,
    why_npm_is_unreachable,
    write_atomically,
)  # fmt: skip

_LOCKS = Path(__file__).with_name("locks")
_SIZES = ".sizes.json"


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """A set of files one engine needs; `megabytes` is about what comes over the network."""

    name: str
    lock: str
    megabytes: int


KAFKA = EngineFiles("Kafka 4.4.0", "kafka.lock", 38)
ZIPKIN = EngineFiles("Zipkin 3.6.1", "zipkin.lock", 86)
DYNOXIDE = EngineFiles("DynamoDB (dynoxide 1.2.1)", "dynoxide.lock", 4)
DYNAMODB_LOCAL = EngineFiles("DynamoDB Local 3.1.0", "dynamodb-local.lock", 44)


def cache_folder() -> Path:
    """Return where fetched engines are kept: the platform's cache folder of the user."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "linkmesh"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "linkmesh"


def runs_dynoxide() -> bool:
    """Whether this platform has the small DynamoDB engine (others run DynamoDB Local)."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and npm_command() is not None


def dynamodb_files() -> EngineFiles:
    """Return the DynamoDB engine of this platform."""
    return DYNOXIDE if runs_dynoxide() else DYNAMODB_LOCAL


def folder_of(files: EngineFiles) -> Path:
    """Return where the files of an engine lie (whether they are there or not): one folder per lock file's content."""
    digest = hashlib.sha256((_LOCKS / files.lock).read_bytes()).hexdigest()[:12]
    return cache_folder() / "engines" / f"{Path(files.lock).stem}-{digest}"


def is_cached(files: EngineFiles) -> bool:
    """Tell, without network and without reading the files, whether all are there in full size."""
    folder = folder_of(files)
    try:
        sizes: dict[str, int] = json.loads((folder / _SIZES).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def fetch(files: EngineFiles, report: Report = lambda _count: None) -> Path:
    """Return the folder with the engine's files, fetching what is missing. Safe to call from several processes.

    Raises:
        LocalError: the network or the registry refuses, the disk is full, or a checksum does not match twice.
    """
    if is_cached(files):
        return folder_of(files)
    folder = folder_of(files)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one_fetches(folder), tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary:
        if not is_cached(files):
            (folder / _SIZES).unlink(missing_ok=True)
            try:
                _FETCHERS[files.lock](read_lock(files), folder, Path(temporary), report)
            except OSError as error:
                raise LocalError(f"cannot fetch {files.name}: {error}", "check the network and the disk") from error
            sizes = {p.name: p.stat().st_size for p in folder.iterdir() if not p.name.startswith(".")}
            write_atomically(folder / _SIZES, json.dumps(sizes).encode())
    return folder


class Progress(Protocol):
    """Shows a person how the fetching goes."""

    def begin(self, name: str, megabytes: int) -> None:
        """Something is about to be fetched; about so much."""

    def advance(self, count: int) -> None:
        """So many bytes of it arrived. Called from several threads."""

    def end(self) -> None:
        """It is there."""


class Silent:
    """Shows nothing."""

    def begin(self, name: str, megabytes: int) -> None:
        """Show nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


def fetch_all(wanted: Sequence[EngineFiles], progress: Progress) -> None:
    """Fetch what is not in the cache yet.

    Raises:
        LocalError: as `fetch`.
    """
    for files in wanted:
        if not is_cached(files):
            progress.begin(files.name, files.megabytes)
            fetch(files, progress.advance)
            progress.end()


def why_unreachable(files: EngineFiles) -> str:
    """Return why an engine that is not cached could not be fetched now, empty when it could."""
    return why_npm_is_unreachable(read_lock(files)[0].coordinate) if files is DYNOXIDE else why_maven_is_unreachable()


def read_lock(files: EngineFiles) -> list[Locked]:
    """Return the lines of an engine's lock file."""
    lines = (_LOCKS / files.lock).read_text().splitlines()
    return [Locked(*line.split()) for line in lines if line.strip() and not line.startswith("#")]


def class_path(folder: Path) -> str:
    """Return the class path of a folder of jars, in a fixed order (an AOT cache is bound to it)."""
    order = folder / "classpath.idx"
    if order.exists():
        return ":".join(str(folder / name) for name in order.read_text().split())
    return ":".join(str(path) for path in sorted(folder.glob("*.jar")))


_FETCHERS: dict[str, Callable[[list[Locked], Path, Path, Report], None]] = {
    KAFKA.lock: fetch_jars,
    DYNAMODB_LOCAL.lock: fetch_jars,
    ZIPKIN.lock: fetch_zipkin,
    DYNOXIDE.lock: fetch_dynoxide,
}


@contextlib.contextmanager
def _only_one_fetches(folder: Path) -> Iterator[None]:
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
