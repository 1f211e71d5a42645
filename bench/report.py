"""Figures as a table for people, as bench/results.json for programs, and as a section of docs/PERFORMANCE.md."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.journeys import Journey

ROOT = Path(__file__).resolve().parent.parent
_BEGIN, _END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Round:
    """One run against one target."""

    rps: float
    cpu_us: float  # CPU of the processes under test per request
    p50_ms: float
    p99_ms: float
    rss_mb: float
    answered: int
    errors: int
    parts_us: Mapping[str, float] = field(default_factory=dict)  # the same by process, where there are several


@dataclass(frozen=True, slots=True)
class Row:
    """A target over all of its rounds: medians, and the spread of CPU."""

    name: str
    rps: float
    cpu_us: float
    cpu_us_min: float
    cpu_us_max: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    answered: int
    errors: int
    counted: int | None  # clicks in the statistics, links in the table; None where nothing is to be counted
    parts_us: Mapping[str, float] = field(default_factory=dict)


def summarise(name: str, rounds: Sequence[Round], counted: int | None = None) -> Row:
    """The row of a target."""
    return Row(
        name=name,
        rps=statistics.median(item.rps for item in rounds),
        cpu_us=statistics.median(item.cpu_us for item in rounds),
        cpu_us_min=min(item.cpu_us for item in rounds),
        cpu_us_max=max(item.cpu_us for item in rounds),
        p50_ms=statistics.median(item.p50_ms for item in rounds),
        p99_ms=statistics.median(item.p99_ms for item in rounds),
        rss_mb=max(item.rss_mb for item in rounds),
        answered=sum(item.answered for item in rounds),
        errors=sum(item.errors for item in rounds),
        counted=counted,
        parts_us={part: statistics.median(item.parts_us[part] for item in rounds) for part in rounds[0].parts_us},
    )


def text(rows: Sequence[Row], journeys: Sequence[Journey]) -> str:
    """Two Markdown tables."""
    nginx = next((row.cpu_us for row in rows if row.name == "nginx"), None)
    lines = [
        "| target | requests/s | CPU µs (min to max) | to nginx | p50 ms | p99 ms | MB | answered | counted | errors |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{row.cpu_us / nginx:.1f} times" if nginx else "-"
        counted = "-" if row.counted is None else str(row.counted)
        lines.append(
            f"| {row.name} | {row.rps:,.0f} | {row.cpu_us:.1f} ({row.cpu_us_min:.1f} to {row.cpu_us_max:.1f}) "
            f"| {ratio} | {row.p50_ms:.2f} | {row.p99_ms:.2f} | {row.rss_mb:.0f} "
            f"| {row.answered} | {counted} | {row.errors} |"
        )
    for row in rows:
        if row.parts_us:
            parts = ", ".join(f"{name} {cpu_us:.0f}" for name, cpu_us in row.parts_us.items())
            lines += ["", f"{row.name}: CPU µs by process: {parts}."]
    lines += ["", "| way | tries | p50 ms | p99 ms |", "|---|---|---|---|"]
    lines += [f"| {item.name} | {item.tries} | {item.p50_ms:.1f} | {item.p99_ms:.1f} |" for item in journeys]
    return "\n".join(lines)


def machine() -> Mapping[str, object]:
    """What the figures were measured on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


def write(rows: Sequence[Row], journeys: Sequence[Journey], method: Mapping[str, object]) -> None:
    """Writes bench/results.json, and the figures into docs/PERFORMANCE.md between their marks."""
    result = {
        "machine": machine(),
        "method": method,
        "rows": [asdict(row) for row in rows],
        "journeys": [asdict(item) for item in journeys],
    }
    (ROOT / "bench" / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    page = ROOT / "docs" / "PERFORMANCE.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    about = f"{machine()['cpu']}, {machine()['cores']} cores, Python {machine()['python']}; {method}"
    page.write_text(f"{before}{_BEGIN}\n{about}\n\n{text(rows, journeys)}\n{_END}{after}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
