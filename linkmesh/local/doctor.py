"""Look at this machine as a start would find it: changes nothing, asks the network only for what is not cached."""

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from linkmesh.local import cache
from linkmesh.local.control import NotRunning, ask
from linkmesh.local.errors import LocalError
from linkmesh.local.java import find_java
from linkmesh.local.ports import is_free, who_listens

_PYTHON = (3, 11)
_DISK_BYTES = 1_500_000_000  # engines 130 MB, start-up caches 130 MB, an hour of events and room for the broker's log
_MEMORY_BYTES = 1_500_000_000  # measured: about 1.1 GB in all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what, what was found, whether that will do, and what to do if not."""

    what: str
    found: str
    good: bool
    hint: str = ""


def examine(state: Path, ports: Mapping[str, int]) -> list[Finding]:
    """Return all findings, in the order in which a start needs the things."""
    return [_python(), _venv(), _java(), *_engines(), _disk(state), _memory(), *_ports(state, ports)]


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = ".".join(str(part) for part in _PYTHON)
    return Finding("python", version, sys.version_info >= _PYTHON, f"install Python {wanted} or newer")


def _venv() -> Finding:
    there = importlib.util.find_spec("venv") is not None and importlib.util.find_spec("ensurepip") is not None
    return Finding("venv module", "there" if there else "missing", there, "apt install python3-venv")


def _java() -> Finding:
    try:
        java = find_java()
    except LocalError as error:
        return Finding("java", str(error), good=False, hint=error.hint)
    return Finding("java", f"{java.major} at {java.executable}", good=True)


def _engines() -> list[Finding]:
    findings = []
    for files in (cache.KAFKA, cache.dynamodb_files(), cache.ZIPKIN):
        if cache.is_cached(files):
            findings.append(Finding(files.name, f"cached in {cache.folder_of(files)}", good=True))
        else:
            problem = cache.why_unreachable(files)
            found = problem or f"to be fetched, about {files.megabytes} MB"
            findings.append(Finding(files.name, found, not problem, "check the network, proxy and mirror settings"))
    return findings


def _disk(state: Path) -> Finding:
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    hint = f"free {_DISK_BYTES // 10**6} MB, or choose another place with --state"
    return Finding("disk", f"{free // 10**6} MB free at {there}", free >= _DISK_BYTES, hint)


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    hint = "end other programs, or leave Zipkin out (--no-traces)"
    return Finding("memory", f"{available // 10**6} MB available", available >= _MEMORY_BYTES, hint)


def _ports(state: Path, ports: Mapping[str, int]) -> list[Finding]:
    try:
        ask(state, "status")
    except NotRunning:
        pass
    else:
        return [Finding("ports", "in use by the system that runs here", good=True)]
    taken = [
        Finding(
            f"port {number} ({name})",
            f"taken by {who_listens(number)}",
            good=False,
            hint=f"linkmesh up --port {name}=N, --port-offset N or --free-ports",
        )
        for name, number in ports.items()
        if not is_free(number)
    ]
    return taken or [Finding("ports", f"all {len(ports)} free", good=True)]
