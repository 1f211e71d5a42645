"""make bench-profile: where the microseconds of a redirect go, by servers that each do one thing more than the last.

python -m bench.ladder [--rounds 9] [--duration 2] [--no-write]

A sampling profiler sees Python and not the parser, the loop and the kernel, and slows down what it sees; the
difference between two servers under the same load is what the one thing costs, in all of these. User and system time
are told apart as the kernel accounts them.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import load, nginx, processes, report
from bench.ladder_server import PATH, STEPS
from bench.load import BROWSER
from bench.plot import Bar, Panel, svg
from bench.rounds import LOAD_CORE, SERVER_CORE
from bench.targets import CONNECTIONS
from linkmesh.local.ports import free_port, is_free

_TOLD = {
    "bytes": "the loop and the kernel: read, write, nothing between",
    "parsed": "the HTTP parser, and the headers as a list",
    "connection": "our connection on uvicorn's: limits, keep-alive, what is taken, metrics",
    "remembered": "the link from this process' memory, if it may be believed",
    "recorded": "the click, recorded in the spool",
}
_START_S = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    """A server's CPU per request, medians."""

    name: str
    cpu_us: float
    user_us: float
    system_us: float
    rps: float


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--duration", type=int, default=2, help="seconds of a round")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    if not load.available():
        sys.stderr.write("bench: wrk and taskset are not installed (Debian: wrk, util-linux)\n")
        return 1
    steps = asyncio.run(_measure(options.rounds, options.duration))
    print(text(steps))
    if not options.no_write:
        method = {"rounds": options.rounds, "duration_s": options.duration}
        (report.ROOT / "docs" / "profile.svg").write_text(plot(steps))
        section = f"{report.about(method)}\n\n![What each step costs](profile.svg)\n\n{text(steps)}"
        report.write("profile", "profile", section, {"method": method, "steps": report.as_data(steps)})
    return 0


def text(steps: Sequence[Step]) -> str:
    """A Markdown table: each step with what it costs beyond the one before."""
    lines = [
        "| what is done | CPU µs | user | system | beyond the line above | requests/s |",
        "|---|---|---|---|---|---|",
    ]
    before = 0.0
    for step in steps:
        more = f"{step.cpu_us - before:+.1f}" if step.name in _TOLD else "-"
        what = f"{step.name}: {_TOLD[step.name]}" if step.name in _TOLD else f"{step.name}: a constant 302"
        lines.append(
            f"| {what} | {step.cpu_us:.1f} | {step.user_us:.1f} | {step.system_us:.1f} | {more} | {step.rps:,.0f} |"
        )
        before = step.cpu_us if step.name in _TOLD else 0.0
    return "\n".join(lines)


def plot(steps: Sequence[Step]) -> str:
    """What each step adds, as an SVG."""
    own = [step for step in steps if step.name in _TOLD]
    added = [step.cpu_us - before for step, before in zip(own, [0.0, *(step.cpu_us for step in own)], strict=False)]
    bars = [Bar(step.name, max(0.0, more), " µs") for step, more in zip(own, added, strict=True)]
    return svg([Panel("CPU of a redirect, step by step", bars)])


async def _measure(rounds: int, duration_s: int) -> list[Step]:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            servers: dict[str, tuple[str, list[int]]] = {}
            if nginx.available():
                url, master = await stack.enter_async_context(nginx.constant_redirect(Path(folder)))
                servers["nginx"] = (url, processes.family(master))
            for step in STEPS:
                port, pid = await stack.enter_async_context(_server(step, Path(folder) / step))
                servers[step] = (f"http://127.0.0.1:{port}", [pid])
            for _, pids in servers.values():
                processes.pin(pids, SERVER_CORE)
            played: dict[str, list[Step]] = {name: [] for name in servers}
            for number in range(rounds):
                for name, (url, pids) in servers.items():
                    played[name].append(await _round(name, url, pids, duration_s))
                    print(f"round {number + 1}: {name} {played[name][-1].cpu_us:.1f} µs", file=sys.stderr)
    return [_median(name, runs) for name, runs in played.items()]


async def _round(name: str, url: str, pids: Sequence[int], duration_s: int) -> Step:
    user_s, system_s = processes.user_and_system_s(pids)
    result = await load.run(
        url + PATH.decode(), connections=CONNECTIONS, duration_s=duration_s, core=LOAD_CORE, headers=BROWSER
    )
    if result.errors:
        raise RuntimeError(f"{name}: {result.errors} errors")
    after_user_s, after_system_s = processes.user_and_system_s(pids)
    user_us = 1e6 * (after_user_s - user_s) / result.requests
    system_us = 1e6 * (after_system_s - system_s) / result.requests
    return Step(name, user_us + system_us, user_us, system_us, result.rps)


def _median(name: str, runs: Sequence[Step]) -> Step:
    return Step(
        name,
        statistics.median(run.cpu_us for run in runs),
        statistics.median(run.user_us for run in runs),
        statistics.median(run.system_us for run in runs),
        statistics.median(run.rps for run in runs),
    )


@contextlib.asynccontextmanager
async def _server(step: str, folder: Path) -> AsyncIterator[tuple[int, int]]:
    """A server of the ladder: its port and its pid."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.ladder_server", step, str(port), folder)
    try:
        async with asyncio.timeout(_START_S):
            while is_free(port):  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    sys.exit(main())
