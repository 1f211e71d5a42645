"""`linkmesh rebuild CODE`: a link's row in the table, made again from its event rows."""

from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, open_client, show


def rebuild(
    code: Annotated[str, typer.Argument(help="The short code.")], state: State = STATE_FOLDER, as_json: Json = False
) -> None:
    """Repair a link's row from its events and say what was wrong."""
    with open_client(state) as client:
        told = client.rebuild_link(code)
    show(told, lambda: _text(code, told["changes"]), as_json=as_json)


def _text(code: str, changes: object) -> str:
    assert isinstance(changes, dict), "see docs/CONTRACTS.md"
    if not changes:
        return f"{code} is as its events say"
    return "\n".join(
        [f"repaired {code}", *(f"  {field}: {one['old']} -> {one['new']}" for field, one in changes.items())]
    )
