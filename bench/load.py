"""The load generator: wrk, on a core of its own, closed loop over kept connections."""

import asyncio
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}

# What a browser sends, so that servers parse what they would have to parse.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36",
    "Referer": "https://news.example.org/today",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of wrk measured."""

    requests: int
    errors: int  # sockets that failed, and answers that are neither 2xx nor 3xx
    rps: float
    p50_ms: float
    p99_ms: float
    created: int | None = None  # answers that were 201; None where the script does not count them


def available() -> bool:
    """Whether wrk and the way to pin it are installed."""
    return shutil.which("wrk") is not None and shutil.which("taskset") is not None


async def run(
    url: str,
    *,
    connections: int,
    duration_s: int,
    core: int,
    headers: Mapping[str, str],
    script: Path | None = None,
    arguments: Sequence[str] = (),
) -> Load:
    """One run of wrk with one thread; `arguments` are the script's.

    Raises:
        RuntimeError: wrk failed, or printed what is not understood.
    """
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if script is not None:
        command += ["-s", str(script)]
    process = await asyncio.create_subprocess_exec(
        *command,
        url,
        *(["--", *arguments] if arguments else ()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(duration_s + 30):
        output = (await process.communicate())[0].decode()
    if process.returncode != 0:
        raise RuntimeError(f"wrk failed: {output}")
    return parse(output)


def parse(output: str) -> Load:
    """The figures in wrk's output.

    Raises:
        RuntimeError: one of them is not there.
    """
    requests = re.search(r"(\d+) requests in", output)
    rps = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if requests is None or rps is None:
        raise RuntimeError(f"wrk printed no figures: {output}")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    created = re.search(r"^Created: (\d+)\nNot created: (\d+)$", output, re.MULTILINE)
    errors = sum(map(int, sockets.groups())) if sockets else 0
    return Load(
        requests=int(requests[1]),
        errors=errors + (int(created[2]) if created else int(wrong[1]) if wrong else 0),
        rps=float(rps[1]),
        p50_ms=_percentile(output, 50),
        p99_ms=_percentile(output, 99),
        created=int(created[1]) if created else None,
    )


def _percentile(output: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk printed no {percent} % latency: {output}")
    return float(found[1]) * _UNITS_MS[found[2]]
