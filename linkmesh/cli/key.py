"""`linkmesh key create`: keys for the accounts of the system that runs here."""

import asyncio
from typing import Annotated

import typer

from linkmesh.cli.terminal import NOT_FOUND, STATE_FOLDER, Json, State, development, fail, note, running_state, show

app = typer.Typer(help="API keys of accounts.", no_args_is_help=True)


@app.command()
def create(
    user_id: Annotated[str, typer.Option(help="The account; it is opened if it is new.")] = "dev",
    free: Annotated[
        bool, typer.Option("--free", help="Open a new account on the free plan, not the premium one.")
    ] = False,
    scope: Annotated[list[str] | None, typer.Option(help="What the key allows (links:read …); none: all.")] = None,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    from chassis.errors import ServiceError
    from linkmesh.local.development import make_key

    link_service = development(state).get("link_service")
    if not link_service:
        fail("no system ever ran here", "start it: linkmesh up", NOT_FOUND)
    made = make_key(running_state(state), link_service, user_id, premium=not free, scopes=scope or [])
    try:
        secret = asyncio.run(made)
    except ServiceError as error:
        fail(str(error), "is it running? linkmesh status")
    show({"user_id": user_id, "secret": secret}, lambda: secret, as_json=as_json)
    if not as_json:
        note("keep it: it is not shown again")
