"""`linkmesh lag`: how far every consumer group is behind, on every partition; live on a terminal."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.broker import explained, find_broker
from linkmesh.cli.terminal import NOT_FOUND, STATE_FOLDER, Json, State, fail, show, table

if TYPE_CHECKING:
    from rich.table import Table

    from chassis.kafka.lag import PartitionLag

_BAR_CELLS = 20
_CLIENT = "linkmesh-lag"
_COLOURS = {"healthy": "green", "busy": "cyan", "warning": "yellow", "critical": "red"}
_HEAD = ("group", "topic", "partition", "records", "lag", "", "", "owner")
_FRAME_LINES = 4  # what the live table needs besides its rows
_WIDE = 120  # columns of a terminal that shows owners and whole bars, too


def lag(
    group: Annotated[str, typer.Option(help="Only this group.")] = "",
    once: Annotated[bool, typer.Option("--once", help="One look, also on a terminal.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between looks.")] = 1.0,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show how far each consumer group is behind. Exit 3 when Kafka does not answer."""
    from contracts.topics import GROUPS

    if group and group not in GROUPS:
        fail(f"there is no group {group}", f"one of: {', '.join(GROUPS)}", NOT_FOUND)
    bootstrap, ports = find_broker(state)
    if once or as_json or not sys.stdout.isatty():
        from linkmesh.local.lag import as_json as row_as_json

        with explained():
            rows = asyncio.run(_look(bootstrap, ports, group))
        show([row_as_json(row) for row in rows], lambda: table(cells(rows)), as_json=as_json)
    else:
        asyncio.run(_watch(bootstrap, ports, group, interval))


def bar(seconds: float, cells_max: int = _BAR_CELLS) -> str:
    """Return a bar that is full at 30 s; its first cell fills as soon as a partition is not healthy."""
    from chassis.kafka.lag import CRITICAL_ABOVE_S, HEALTHY_BELOW_S

    share = min(1.0, seconds / CRITICAL_ABOVE_S)
    filled = 0 if seconds < HEALTHY_BELOW_S else max(1, round(cells_max * share))
    return "█" * filled + "░" * (cells_max - filled)


def cells(rows: "Sequence[PartitionLag]") -> list[tuple[str, ...]]:
    """Return the table, its head first."""
    return [_HEAD, *(_cells(row) for row in rows)]


def fold(rows: "Sequence[PartitionLag]", rows_max: int) -> tuple[list["PartitionLag"], int]:
    """Return the rows that fit, in their order, the furthest behind being kept; and how many were left out."""
    kept = sorted(range(len(rows)), key=lambda at: (-rows[at].seconds, -rows[at].records, at))[: max(1, rows_max)]
    return [rows[at] for at in sorted(kept)], len(rows) - len(kept)


def _cells(row: "PartitionLag") -> tuple[str, ...]:
    return (
        row.group, row.topic, str(row.partition), str(row.records), f"{row.seconds:.1f} s", bar(row.seconds),
        row.level.value, row.owner or "-",
    )  # fmt: skip


async def _look(bootstrap: str, ports: list[int], group: str) -> "list[PartitionLag]":
    from chassis.clock import SystemClock
    from chassis.kafka.admin import Admin
    from linkmesh.local.lag import measure

    async with Admin(bootstrap, client_id=_CLIENT) as admin:
        return [row for row in await measure(admin, ports, clock=SystemClock()) if group in ("", row.group)]


async def _watch(bootstrap: str, ports: list[int], group: str, interval_s: float) -> None:
    """Until Ctrl-C. A broker that goes away is said below the last table; it goes on when it is back."""
    from rich.console import Console
    from rich.live import Live

    from chassis.clock import SystemClock
    from chassis.errors import Unavailable
    from chassis.kafka.admin import Admin
    from linkmesh.local.lag import measure

    console, rows, problem = Console(), list["PartitionLag"](), ""
    async with Admin(bootstrap, client_id=_CLIENT) as admin:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                try:
                    found = await measure(admin, ports, clock=SystemClock())
                    rows, problem = [row for row in found if group in ("", row.group)], ""
                except Unavailable as error:
                    problem = error.message
                live.update(_drawn(rows, problem, console.width, console.height), refresh=True)
                await SystemClock().sleep(interval_s)


def _drawn(rows: "Sequence[PartitionLag]", problem: str, width: int, height: int) -> "Table":
    """Return the live table: what is furthest behind, as much as the terminal has room for."""
    from rich.markup import escape
    from rich.table import Table

    shown, hidden = fold(rows, height - _FRAME_LINES)
    caption = f"{hidden} more that are no further behind" if hidden else ""
    drawn = Table(box=None, pad_edge=False, caption=problem or caption, caption_justify="left")
    wide = width >= _WIDE
    for title in (*_HEAD[:2], "partition" if wide else "part", *_HEAD[3:7], *(_HEAD[7:] if wide else ())):
        drawn.add_column(title, no_wrap=True)
    for row in shown:
        colour = _COLOURS[row.level.value]
        coloured = (f"[{colour}]{bar(row.seconds, _BAR_CELLS if wide else _BAR_CELLS // 2)}[/]",
                    f"[{colour}]{row.level.value}[/]")  # fmt: skip
        drawn.add_row(*_cells(row)[:5], *coloured, *((escape(row.owner or "-"),) if wide else ()))
    return drawn
