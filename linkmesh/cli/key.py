"""`linkmesh key create`: further keys for one's own account, and keys for any account of the system that runs here."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from linkmesh.cli.terminal import (
    NOT_FOUND,
    STATE_FOLDER,
    USAGE,
    Json,
    State,
    development,
    fail,
    note,
    open_client,
    running_state,
    show,
)

app = typer.Typer(help="API keys of accounts.", no_args_is_help=True)


@app.command()
def create(
    user_id: Annotated[
        str, typer.Option(help="An account of the system that runs here, opened if it is new; none: one's own.")
    ] = "",
    free: Annotated[
        bool, typer.Option("--free", help="With --user-id: open a new account on the free plan, not the premium one.")
    ] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="What the key allows (links:read …); none: what the key in use allows.")
    ] = None,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    if free and not user_id:
        fail("--free is for a new account", "name it: --user-id NAME", USAGE)
    if user_id:
        made = _for_account(state, user_id, premium=not free, scopes=scope or [])
    else:
        with open_client(state) as client:
            made = client.create_key(scope or [])
    show(made, lambda: str(made["secret"]), as_json=as_json)
    if not as_json:
        note("keep it: it is not shown again")


def _for_account(state: Path, user_id: str, *, premium: bool, scopes: list[str]) -> dict[str, object]:
    """Make a key of any account by the mesh secret, which only the owner of the state folder can read."""
    from chassis.errors import ServiceError
    from linkmesh.local.development import make_key

    link_service = development(state).get("link_service")
    if not link_service:
        fail("no system ever ran here", "start it: linkmesh up", NOT_FOUND)
    made = make_key(running_state(state), link_service, user_id, premium=premium, scopes=scopes)
    try:
        secret = asyncio.run(made)
    except ServiceError as error:
        fail(str(error), "is it running? linkmesh status")
    return {"user_id": user_id, "secret": secret}
