"""make bench-clicks: a minute at 10 000 redirects a second, and what the counting of it costs, by the pace of flushes.

python -m bench.clicks [--duration 60] [--intervals 1,5,60] [--no-write]
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import links, report, steady
from bench.steady import Steady
from linkmesh.local.options import Options, choose_ports
from linkmesh.local.supervisor import LocalSystem

_PATIENCE_S = 180.0  # beyond the interval, until the last row is written


def main() -> int:
    """Measures, prints, writes; returns 1 if a redirect failed, or clicks were not counted exactly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds at each interval")
    parser.add_argument("--intervals", default="1,5,60", help="seconds between flushes")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    intervals = [float(text) for text in options.intervals.split(",")]
    runs = {interval_s: asyncio.run(_measure(interval_s, options.duration)) for interval_s in intervals}
    section = text(list(runs), list(runs.values()))
    print(section)
    if not options.no_write:
        method = {"duration_s": options.duration}
        figures = [{"flush_interval_s": each, **report.as_data([run])[0]} for each, run in runs.items()]
        report.write(
            "clicks", "clicks", f"{report.about(method)}\n\n{section}", {"method": method, "intervals": figures}
        )
    bad = [run for run in runs.values() if not steady.row("", run).good]
    for run in bad:
        sys.stderr.write(f"bench: counted {run.counted} of {run.result}\n")
    return 1 if bad else 0


async def _measure(interval_s: float, duration_s: float) -> Steady:
    """One interval, on a system of its own."""
    with tempfile.TemporaryDirectory() as folder:
        local = Options(
            state=Path(folder), ports=choose_ports(free=True), traces=False, throughput=True,
            settings={"LINKMESH_ENVIRONMENT": "production", "LINKMESH_FLUSH_INTERVAL_S": f"{interval_s:g}"},
        )  # fmt: skip
        async with LocalSystem(local, report=lambda line: print(line, file=sys.stderr)) as system:
            await links.put_in_redis(f"redis://127.0.0.1:{local.ports['redis']}/0", range(steady.LINKS))
            return await steady.full_system(system, duration_s, flush_s=interval_s + _PATIENCE_S)


def text(intervals: Sequence[float], runs: Sequence[Steady]) -> str:
    """A Markdown table: latencies, exactness, writes per click, CPU per click of whoever used some."""
    names = [name for name, cpu_us in runs[0].cpu_us.items() if cpu_us >= steady.TOLD_US]
    heads = ["flushes", "redirects/s", "p50 ms", "p99 ms", "p99.9 ms", "sent", "answered", "counted"]
    heads += ["rows written a click", *(f"{name} CPU µs" for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += [
        f"| every {interval_s:g} s | {run.result.rps:,.0f} | {run.result.p50_ms:.2f} | {run.result.p99_ms:.2f} "
        f"| {run.result.p999_ms:.2f} | {run.result.sent} | {run.result.answered} | {run.counted} "
        f"| {run.rows_written / max(1, run.counted):.3f} | "
        + " | ".join(f"{run.cpu_us[name]:.1f}" for name in names)
        + " |"
        for interval_s, run in zip(intervals, runs, strict=True)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
