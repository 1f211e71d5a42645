"""`linkmesh reconcile`: whether every click that was recorded has been counted, spool by spool."""

import asyncio
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.terminal import (
    FAILED,
    NOT_FOUND,
    STATE_FOLDER,
    Json,
    State,
    development,
    fail,
    held_state,
    show,
    table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from linkmesh.local.reconciling import Figures, Reconciliation

_SHOWN = 20  # spools in balance that a person is shown; of those that are not, all
_COLUMNS = ("recorded", "shipped", "counted", "repeats", "missing", "buried", "dropped", "difference")


def reconcile(
    wait: Annotated[float, typer.Option(min=0, help="Seconds that clicks on their way are waited for.")] = 15.0,
    everything: Annotated[bool, typer.Option("--all", help="Show every spool of the last seven days.")] = False,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Compare what gateways recorded with what was counted. Exit 1 on a difference, or where nobody can tell."""
    from chassis.errors import ServiceError

    try:
        found = asyncio.run(_reconcile(state, wait))
    except ServiceError as error:
        fail(error.message)
    show(_json(found), lambda: text(found, everything=everything), as_json=as_json)
    if not found.balanced:
        raise typer.Exit(FAILED)


async def _reconcile(state: "Path", wait_s: float) -> "Reconciliation":
    from linkmesh.local import reconciling

    if target := os.environ.get("LINKMESH_ANALYTICS"):
        calls = reconciling.by_key(target, os.environ.get("LINKMESH_API_KEY", ""))
    elif target := development(state).get("analytics"):
        calls = reconciling.as_owner(held_state(state), target)
    else:
        fail("no system ever ran here", "start it (linkmesh up), or set LINKMESH_ANALYTICS", NOT_FOUND)
    async with calls as call:
        return await reconciling.reconcile(call, wait_s=wait_s)


def text(found: "Reconciliation", *, everything: bool) -> str:
    """Return the table of spools, its sums, and what they mean in a sentence."""
    spools, sums = found.spools, found.sums
    shown = [spool for place, spool in enumerate(spools) if everything or place < _SHOWN or spool.figures.difference]
    rows: list[tuple[str, ...]] = [("spool", "started", "state", *_COLUMNS)]
    rows += [
        (spool.spool_id, f"{spool.started_at:%Y-%m-%d %H:%M}", "closed" if spool.closed else "open",
         *_cells(spool.figures))
        for spool in shown
    ]  # fmt: skip
    rows.append((f"{len(spools)} spools", "", "", *_cells(sums)))
    lines = [table(rows)]
    if len(shown) < len(spools):
        lines.append(f"{len(spools) - len(shown)} older spools in balance are not shown (--all)")
    if found.without_spool:
        lines.append(f"{found.without_spool} clicks were counted without a spool")
    if found.unowned:
        numbers = ", ".join(str(number) for number in found.unowned)
        lines.append(f"nobody owns partitions {numbers}: told by their last checkpoints")
    if sums.dropped:
        lines.append(f"{sums.dropped} clicks were answered and had no room in their spool: they are lost")
    if sums.difference:
        lines.append(f"{sums.difference} recorded clicks are not counted, {sums.buried} of them in dead letters")
    if found.late:
        numbers = ", ".join(str(number) for number in found.late)
        lines.append(f"partitions {numbers} are behind: what came since is not told of (linkmesh lag, linkmesh status)")
    if found.counted_until is not None:
        lines.append(f"counted until {found.counted_until:%Y-%m-%d %H:%M:%S} UTC")
    if found.balanced:
        lines.append("every recorded click is counted")
    return "\n".join(lines)


def _cells(figures: "Figures") -> tuple[str, ...]:
    return tuple(str(getattr(figures, column)) for column in _COLUMNS)


def _json(found: "Reconciliation") -> dict[str, object]:
    from linkmesh.local.reconciling import difference

    fields = ("spool_id", "partition", "recorded", "shipped", "counted", "repeats", "missing", "buried", "dropped",
              "closed")  # fmt: skip
    return {
        "sums": asdict(found.sums),
        "without_spool": found.without_spool,
        "unowned_partitions": found.unowned,
        "late_partitions": found.late,
        "counted_until": None if found.counted_until is None else found.counted_until.isoformat(),
        "spools": [
            {name: getattr(account, name) for name in fields} | {"difference": difference(account)}
            for account in found.accounts
        ],
    }
