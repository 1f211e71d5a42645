"""A report as lines for a person."""

from collections import Counter
from collections.abc import Sequence

from tests.chaos.run import Report

_SHOWN_MAX = 20


def told(report: Report) -> list[str]:
    """What was found, recovery times, and last the line that says it all."""
    lines: list[str] = []
    found = report.verdict
    for name, sentences in (
        ("lost", found.lost), ("wrong", found.wrong), ("stale", found.stale), ("problem", report.problems),
        ("problem", report.book.problems), ("stated exception", found.excused),
    ):  # fmt: skip
        lines += [f"{name}: {sentence}" for sentence in sentences[:_SHOWN_MAX]]
        if len(sentences) > _SHOWN_MAX:
            lines.append(f"{name}: and {len(sentences) - _SHOWN_MAX} more")
    if report.history:
        lines.append(f"history and logs: {report.history}")
    by_victim = Counter(f"{fault.what.split(':')[0].split(' 25')[0]} {fault.victim}" for fault in report.book.faults)
    lines.append("faults: " + ", ".join(f"{count} x {name}" for name, count in sorted(by_victim.items())))
    lines += report.book.others
    lines.append(f"recovery after healing: {spread([seconds for _, seconds in report.recoveries])}")
    if report.machine.slowest > 1:
        lines.append(
            f"the machine was busy: up to {report.machine.slowest:.1f} times slower, bounds of time grew with it"
        )
    lines.append(
        f"{found.checked_reads} answers checked, {len(found.excused)} under a stated exception,"
        f" {report.book.left_out} links left out for what Redis forgot,"
        f" {report.book.idle} faults with nothing in flight do not count, seed {report.seed}"
    )
    lines.append(report.line())
    return lines


def spread(seconds: Sequence[float]) -> str:
    """Median, 90th percentile and maximum."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return f"p50 {ordered[len(ordered) // 2]:.1f} s, p90 {p90:.1f} s, max {ordered[-1]:.1f} s of {len(ordered)}"
