"""make bench-pipeline: what the asynchronous half can take, and how soon it is back after a kill.

python -m bench.pipeline [--events 20000] [--duration 8] [--only relay,writer,rates,recovery] [--no-write]
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import pipeline_rates, pipeline_recovery, pipeline_relay, report, writer
from bench.pipeline_rates import RateFigures
from bench.pipeline_recovery import RecoveryFigures
from bench.pipeline_relay import RelayFigures
from bench.writer import WriterFigures
from linkmesh.local.options import Options, choose_ports
from linkmesh.local.supervisor import LocalSystem

RATES_PER_S = (100, 500)
_PARTS = ("relay", "writer", "rates", "recovery")
_HOUR = 200 * 3600  # creates while Kafka is away for an hour


@dataclass
class Figures:
    """What was measured; a part that was not asked for is empty."""

    relay: list[RelayFigures] = field(default_factory=list)
    writer: list[WriterFigures] = field(default_factory=list)
    rates: list[RateFigures] = field(default_factory=list)
    recovery: list[RecoveryFigures] = field(default_factory=list)


def main() -> int:
    """Measures, prints, writes; returns 1 if creates failed, or their rows came too late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="entries in the relay's outbox")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds of each rate")
    parser.add_argument("--only", default=",".join(_PARTS), help="some of relay, writer, rates, recovery")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(_PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    figures = asyncio.run(_measure(parts, options.events, options.duration))
    print(text(figures))
    if not options.no_write:
        write(figures, {"events": options.events, "duration_s": options.duration, "parts": options.only})
    problems = problems_of(figures)
    sys.stderr.writelines(f"bench: {problem}\n" for problem in problems)
    return 1 if problems else 0


def problems_of(figures: Figures) -> list[str]:
    """What must not be, in sentences."""
    return [
        f"at {rate.rate_per_s}/s {rate.failed} creates failed and {rate.late} rows were late"
        for rate in figures.rates
        if not rate.good
    ]


async def _measure(parts: Sequence[str], events: int, duration_s: float) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        if "relay" in parts:
            figures.relay = [await pipeline_relay.measure(Path(folder) / "relay", events=events)]
        if "writer" in parts:
            figures.writer = await writer.measure(events // 2)
        if {"rates", "recovery"} & set(parts):
            await _with_the_system(Path(folder) / "system", parts, duration_s, figures)
    return figures


async def _with_the_system(state: Path, parts: Sequence[str], duration_s: float, figures: Figures) -> None:
    local = Options(
        state=state, ports=choose_ports(free=True), traces=False, throughput=True,
        settings={"LINKMESH_ENVIRONMENT": "production"},
    )  # fmt: skip
    async with LocalSystem(local, report=lambda line: print(line, file=sys.stderr)) as system:
        dynamodb = f"http://127.0.0.1:{local.ports['dynamodb']}"
        for rate in RATES_PER_S if "rates" in parts else ():
            figures.rates.append(
                await pipeline_rates.measure(
                    system.gateway, system.api_key, dynamodb, rate_per_s=rate, duration_s=duration_s
                )
            )
        if "recovery" in parts:
            figures.recovery = await pipeline_recovery.measure(system)


def text(figures: Figures) -> str:
    """Markdown tables."""
    lines: list[str] = []
    for relay in figures.relay:
        hour_mb = _HOUR * relay.bytes_per_entry / 2**20
        lines += [
            "| relay | events/s | CPU µs an event | bytes an entry |",
            "|---|---|---|---|",
            (
                f"| {relay.events} waiting | {relay.events_per_s:,.0f} | {relay.cpu_us:.0f} "
                f"| {relay.bytes_per_entry:.0f} |"
            ),
            "",
            f"An hour without Kafka at 200 creates/s is {_HOUR} entries, {hour_mb:,.0f} MB of Redis.",
            "",
        ]
    if figures.writer:
        lines += [writer.text(figures.writer), ""]
    if figures.rates:
        lines += [
            "| creates/s | answered | failed | create p50 ms | p99 ms | rows seen | late | to table p50 ms | p99 ms |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {x.rate_per_s} | {x.answered} | {x.failed} | {x.create_p50_ms:.1f} | {x.create_p99_ms:.1f} "
            f"| {x.samples} | {x.late} | {x.table_p50_ms:.1f} | {x.table_p99_ms:.1f} |"
            for x in figures.rates
        ]
        lines.append("")
    if figures.recovery:
        lines += ["| kill -9 of | until | seconds |", "|---|---|---|"]
        lines += [f"| {x.killed} | {x.sign} | {x.seconds:.1f} |" for x in figures.recovery]
    return "\n".join(lines).strip()


def write(figures: Figures, method: dict[str, object]) -> None:
    """Write bench/pipeline.json, and the figures into docs/PERFORMANCE.md between their marks."""
    section = f"{report.about(method)}\n\n{text(figures)}"
    report.write("pipeline", "pipeline", section, {"method": method, **asdict(figures)})


if __name__ == "__main__":
    sys.exit(main())
