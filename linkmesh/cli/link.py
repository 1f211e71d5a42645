"""`linkmesh link create|get|delete`."""

from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, open_client, say, show

app = typer.Typer(help="Make, show and delete links.", no_args_is_help=True)
Code = Annotated[str, typer.Argument(help="The short code.")]


@app.command()
def create(
    long_url: Annotated[str, typer.Argument(help="Where the link leads.")],
    custom_code: Annotated[str, typer.Option("--code", help="A code of your own instead of a generated one.")] = "",
    idempotency_key: Annotated[str, typer.Option(help="Repeating the call with it returns the same link.")] = "",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a link and print its address."""
    with open_client(state) as client:
        link = client.create_link(long_url, custom_code=custom_code, idempotency_key=idempotency_key)
    show(link, lambda: str(link["short_url"]), as_json=as_json)


@app.command()
def get(code: Code, state: State = STATE_FOLDER, as_json: Json = False) -> None:
    """Show a link."""
    with open_client(state) as client:
        link = client.get_link(code)
    show(link, lambda: "\n".join(f"{name:16} {_text(value)}" for name, value in link.items()), as_json=as_json)


@app.command()
def delete(code: Code, state: State = STATE_FOLDER) -> None:
    """Delete a link: its code answers 410 from now on."""
    with open_client(state) as client:
        client.delete_link(code)
    say(f"deleted {code}")


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "-" if value in (None, "") else str(value)
