"""The section of docs/PERFORMANCE.md that make bench writes, its plot, and bench/results.json."""

from collections.abc import Mapping, Sequence

from bench import report
from bench.journeys import Journey
from bench.plot import Bar, Panel, svg
from bench.report import Row
from bench.steady import HalfLoad

PLOT = "redirects.svg"
_DEAR = ("linkmesh-cold", "create-16", "create-64")  # by an order of magnitude: on a scale of their own


def text(rows: Sequence[Row], half: Sequence[HalfLoad], ways: Sequence[Journey]) -> str:
    """Markdown tables."""
    lines = report.table(rows)
    if half:
        lines += ["", "| at half load | requests/s | p50 ms | p99 ms | p99.9 ms | generator late, p99 ms |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [
            f"| {item.name} | {item.rate_per_s:,.0f} | {item.result.p50_ms:.2f} | {item.result.p99_ms:.2f} "
            f"| {item.result.p999_ms:.2f} | {item.result.late_p99_ms:.2f} |"
            for item in half
        ]
    lines += ["", "| way | tries | p50 ms | p99 ms |", "|---|---|---|---|"]
    lines += [f"| {item.name} | {item.tries} | {item.p50_ms:.1f} | {item.p99_ms:.1f} |" for item in ways]
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """CPU per request of every row but those of a fixed rate, as an SVG."""
    nginx = next((row.cpu_us for row in rows if row.name == "nginx"), None)

    def bar(row: Row) -> Bar:
        note = f" µs, {row.cpu_us / nginx:.1f} x" if nginx else " µs"
        return Bar(row.name, row.cpu_us, note, ours=row.name.startswith(("linkmesh-", "create-")))

    measured = [row for row in rows if row.rounds > 1]
    return svg(
        [
            Panel("CPU of the server for a redirect", [bar(row) for row in measured if row.name not in _DEAR], nginx),
            Panel("CPU of all servers for a miss or a create", [bar(row) for row in measured if row.name in _DEAR]),
        ]
    )


def write(rows: Sequence[Row], half: Sequence[HalfLoad], ways: Sequence[Journey], method: Mapping[str, object]) -> None:
    """Writes page, plot and figures."""
    (report.ROOT / "docs" / PLOT).write_text(plot(rows))
    image = f"![CPU per request]({PLOT})"
    section = f"{report.about(method)}\n\n{image}\n\n{text(rows, half, ways)}"
    figures = {
        "method": method,
        "rows": report.as_data(rows),
        "half_load": report.as_data(half),
        "journeys": report.as_data(ways),
    }
    report.write("results", "figures", section, figures)
