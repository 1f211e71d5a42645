"""`linkmesh key create`."""

from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, note, open_client, show

app = typer.Typer(help="API keys of the account.", no_args_is_help=True)


@app.command()
def create(
    scope: Annotated[list[str] | None, typer.Option(help="What it allows (links:read …); none: all of yours.")] = None,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Make another key and print it, this once."""
    with open_client(state) as client:
        made = client.create_key(scope or [])
    show(made, lambda: str(made["secret"]), as_json=as_json)
    if not as_json:
        note("keep it: it is not shown again")
