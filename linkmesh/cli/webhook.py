"""`linkmesh webhook create|list`."""

from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, note, open_client, show, table

app = typer.Typer(help="Who is told about your links.", no_args_is_help=True)


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where deliveries are posted.")],
    event: Annotated[list[str] | None, typer.Option(help="Such as link.created; none: all.")] = None,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Add an endpoint and print its signing secret, this once."""
    with open_client(state) as client:
        made = client.create_webhook(url, event or [])
    show(made, lambda: str(made["secret"]), as_json=as_json)
    if not as_json:
        note("keep it to check signatures: it is not shown again")


@app.command("list")
def list_(state: State = STATE_FOLDER, as_json: Json = False) -> None:
    """Show the endpoints of the account."""
    with open_client(state) as client:
        answer = client.list_webhooks()
    items = answer.get("items")
    endpoints = items if isinstance(items, list) else []

    def text() -> str:
        rows = [(str(e["endpoint_id"]), str(e["url"]), ", ".join(e["event_types"])) for e in endpoints]
        return table(rows) if rows else "no endpoints"

    show(answer, text, as_json=as_json)
