"""`linkmesh audit entries`."""

from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, open_client, show, table

app = typer.Typer(help="The provable record of what happened to links.", no_args_is_help=True)


@app.command()
def entries(
    code: Annotated[str, typer.Option(help="Only of this code.")] = "",
    page_size: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 50,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """List recorded events: of the account newest first, of a code oldest first."""
    query = {"page_size": str(page_size)} | ({"short_code": code} if code else {})
    with open_client(state) as client:
        answer = client.audit_entries(**query)
    items = answer.get("items")
    found = items if isinstance(items, list) else []

    def text() -> str:
        rows = [[str(value) for value in entry.values()] for entry in found]
        return table(rows) if rows else "no entries"

    show(answer, text, as_json=as_json)
