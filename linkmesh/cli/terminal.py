"""How every command speaks: results on stdout, as text or JSON; errors as one line on stderr; four exit codes.

0 done · 1 failed · 2 wrong usage · 3 not running, or not found.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from linkmesh.client import Client

DONE, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3
STATE_FOLDER = Path(".linkmesh")
_GATEWAY = "http://127.0.0.1:8080"

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
State = Annotated[Path, typer.Option("--state", help="Folder with data, logs and dev.json.", show_default=True)]


def say(text: str) -> None:
    """Print a line of the result."""
    typer.echo(text)


def note(text: str) -> None:
    """Tell a person something that is no result (stderr)."""
    typer.echo(text, err=True)


def show(value: object, text: Callable[[], str], *, as_json: bool) -> None:
    """Print a result: as JSON for a program, as text for a person."""
    say(json.dumps(value, indent=2, default=str) if as_json else text())


def fail(problem: str, hint: str = "", code: int = FAILED) -> NoReturn:
    """End with an error: what is wrong and, in brackets, what to do."""
    typer.echo(f"linkmesh: {problem}" + (f"\n          {hint}" if hint else ""), err=True)
    sys.exit(code)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def running_state(state: Path) -> Path:
    """Return the folder of the system that runs: the ephemeral one inside the state folder, or the state folder itself.

    Where none runs, it is the ephemeral one if one was killed there, so that `linkmesh down` finds what it left behind.
    """
    from linkmesh.local.alone import is_held, lock_file

    ephemeral, lasting = (state / "ephemeral").absolute(), state.absolute()
    if is_held(ephemeral) or (lock_file(ephemeral).exists() and not is_held(lasting)):
        return ephemeral
    return lasting


def held_state(state: Path) -> Path:
    """Return the folder of the system that runs; where none does, end with 3."""
    from linkmesh.local.alone import is_held

    found = running_state(state)
    if not is_held(found):
        fail(f"no system runs in {found}", "start it: linkmesh up", NOT_FOUND)
    return found


def development(state: Path) -> Mapping[str, str]:
    """Return what `linkmesh up` wrote into dev.json, empty when it never ran here."""
    try:
        told = json.loads((running_state(state) / "dev.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: str(value) for name, value in told.items()} if isinstance(told, dict) else {}


def open_client(state: Path) -> "Client":
    """Return a client of the gateway: LINKMESH_GATEWAY and LINKMESH_API_KEY, else what dev.json says."""
    from linkmesh.client import Client

    told = development(state)
    api_key = os.environ.get("LINKMESH_API_KEY") or told.get("api_key", "")
    if not api_key:
        fail("no API key", "start the system (linkmesh up), or set LINKMESH_API_KEY", NOT_FOUND)
    return Client(os.environ.get("LINKMESH_GATEWAY") or told.get("gateway", _GATEWAY), api_key)
