"""Figures as a table for people, as bench/results.json for programs, and as a section of docs/PERFORMANCE.md."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


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
    parts_us: Mapping[str, float] = field(default_factory=dict)  # by process, where there are several, or others beside


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A target over all of its rounds: medians, and the spread. `answered` and `counted` are of the requests of which
    exactly so many were sent; where that cannot be, `answered` is of the rounds, and nothing is counted."""

    name: str
    rps: float
    rps_min: float
    rps_max: float
    cpu_us: float
    cpu_us_min: float
    cpu_us_max: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    rounds: int
    answered: int
    errors: int
    counted: int | None  # clicks in the statistics, links in the table
    parts_us: Mapping[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether everything was answered, and what was answered was counted: neither more nor less."""
        return not self.errors and self.counted in (None, self.answered)


@dataclass(frozen=True, slots=True)
class Counted:
    """A fixed number of requests: how many were answered as they should, how many of these were counted."""

    sent: int
    answered: int
    counted: int


def summarise(name: str, rounds: Sequence[Round], exact: Counted | None = None) -> Row:
    """The row of a target."""
    errors = sum(item.errors for item in rounds)
    return Row(
        name=name,
        rps=statistics.median(item.rps for item in rounds),
        rps_min=min(item.rps for item in rounds),
        rps_max=max(item.rps for item in rounds),
        cpu_us=statistics.median(item.cpu_us for item in rounds),
        cpu_us_min=min(item.cpu_us for item in rounds),
        cpu_us_max=max(item.cpu_us for item in rounds),
        p50_ms=statistics.median(item.p50_ms for item in rounds),
        p99_ms=statistics.median(item.p99_ms for item in rounds),
        rss_mb=max(item.rss_mb for item in rounds),
        rounds=len(rounds),
        answered=exact.answered if exact else sum(item.answered for item in rounds),
        errors=errors + (exact.sent - exact.answered if exact else 0),
        counted=exact.counted if exact else None,
        parts_us={part: statistics.median(item.parts_us[part] for item in rounds) for part in rounds[0].parts_us},
    )


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as a Markdown table, and lines on whose CPU it was."""
    nginx = next((row.cpu_us for row in rows if row.name == "nginx"), None)
    lines = [
        "| target | requests/s | CPU µs (min to max) | to nginx | p50 ms | p99 ms | MB | answered | counted | errors |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{row.cpu_us / nginx:.1f} times" if nginx else "-"
        counted = "-" if row.counted is None else str(row.counted)
        spread = f" ({row.cpu_us_min:.1f} to {row.cpu_us_max:.1f})" if row.rounds > 1 else ""
        lines.append(
            f"| {row.name} | {row.rps:,.0f} | {row.cpu_us:.1f}{spread} "
            f"| {ratio} | {row.p50_ms:.2f} | {row.p99_ms:.2f} | {row.rss_mb:.0f} "
            f"| {row.answered} | {counted} | {row.errors} |"
        )
    for row in rows:
        if row.parts_us:
            parts = ", ".join(f"{name} {cpu_us:.1f}" for name, cpu_us in row.parts_us.items())
            lines += ["", f"{row.name}: CPU µs by process: {parts}."]
    return lines


def machine() -> Mapping[str, object]:
    """What the figures were measured on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}


def about(method: Mapping[str, object]) -> str:
    """Machine and method in a line."""
    told, how = machine(), ", ".join(f"{name} {value}" for name, value in method.items())
    return f"{told['cpu']}, {told['cores']} cores, Python {told['python']}; {how}"


def write(name: str, title: str, text: str, figures: Mapping[str, Any]) -> None:
    """Writes bench/<name>.json, and the text into docs/PERFORMANCE.md between the marks of this title.

    Raises:
        ValueError: the page has no such marks.
    """
    (ROOT / "bench" / f"{name}.json").write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    page = ROOT / "docs" / "PERFORMANCE.md"
    page.write_text(replaced(page.read_text(), title, text))


def replaced(page: str, title: str, text: str) -> str:
    """The page with other text between `<!-- title: …` and `<!-- end of title -->`.

    Raises:
        ValueError: it has no such marks.
    """
    before, begin, rest = page.partition(f"<!-- {title}:")
    mark, _, rest = rest.partition("-->")
    _, end, after = rest.partition(f"<!-- end of {title} -->")
    if not begin or not end:
        raise ValueError(f"docs/PERFORMANCE.md has no marks for {title}")
    return f"{before}{begin}{mark}-->\n{text}\n{end}{after}"


def as_data(figures: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses for JSON."""
    return [asdict(item) for item in figures]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
