"""`linkmesh link create|get|update|delete|restore|history`."""

from typing import Annotated

import typer

from linkmesh.cli.link_import import import_links
from linkmesh.cli.terminal import STATE_FOLDER, USAGE, Json, State, fail, note, open_client, say, show, table

app = typer.Typer(help="Make, show, change, delete and restore links.", no_args_is_help=True)
Code = Annotated[str, typer.Argument(help="The short code.")]
IfVersion = Annotated[int, typer.Option(min=0, help="Only if the link is at this version; 0: whatever it is at.")]
IdempotencyKey = Annotated[str, typer.Option(help="Repeating the call with it does nothing more.")]
app.command("import")(import_links)
CLEARABLE = ("title", "tags", "expires_at", "starts_at", "redirect_status")


@app.command()
def create(
    long_url: Annotated[str, typer.Argument(help="Where the link leads.")],
    custom_code: Annotated[str, typer.Option("--code", help="A code of your own instead of a generated one.")] = "",
    title: Annotated[str | None, typer.Option(help="A text for yourself.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given several times.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it ends (RFC 3339).")] = None,
    starts_at: Annotated[str | None, typer.Option(help="When it begins (RFC 3339).")] = None,
    redirect_status: Annotated[int | None, typer.Option(help="301, 302, 307 or 308.")] = None,
    idempotency_key: Annotated[str, typer.Option(help="Repeating the call with it returns the same link.")] = "",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a link and print its address."""
    fields = {
        "title": title,
        "tags": tag or None,
        "expires_at": expires_at,
        "starts_at": starts_at,
        "redirect_status": redirect_status,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    with open_client(state) as client:
        link = client.create_link(long_url, custom_code=custom_code, idempotency_key=idempotency_key, **given)
    show(link, lambda: str(link["short_url"]), as_json=as_json)


@app.command()
def get(
    code: Code,
    at: Annotated[str, typer.Option(help="Show it as it was at this time (RFC 3339).")] = "",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show a link."""
    with open_client(state) as client:
        link = client.get_link(code, at=at)
    _show(link, as_json=as_json)


@app.command()
def update(
    code: Code,
    long_url: Annotated[str | None, typer.Option(help="Where the link leads from now on.")] = None,
    title: Annotated[str | None, typer.Option(help="A text for yourself.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; the tags given are the only ones from now on.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="When it ends (RFC 3339).")] = None,
    starts_at: Annotated[str | None, typer.Option(help="When it begins (RFC 3339).")] = None,
    redirect_status: Annotated[int | None, typer.Option(help="301, 302, 307 or 308.")] = None,
    clear: Annotated[list[str] | None, typer.Option(help=f"A field to empty: {', '.join(CLEARABLE)}.")] = None,
    if_version: IfVersion = 0,
    idempotency_key: IdempotencyKey = "",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Change a link, at once for everybody who follows it, and show it."""
    given: dict[str, object] = {
        "long_url": long_url,
        "title": title,
        "tags": tag or None,
        "expires_at": expires_at,
        "starts_at": starts_at,
        "redirect_status": redirect_status,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    for name in clear or []:
        if name not in CLEARABLE or name in changes:
            fail(f"cannot clear {name}", f"one that is not set, of: {', '.join(CLEARABLE)}", USAGE)
    changes |= dict.fromkeys(clear or [])
    if not changes:
        fail("nothing to change", "name a field, such as --long-url", USAGE)
    with open_client(state) as client:
        link = client.update_link(code, changes, if_version=if_version, idempotency_key=idempotency_key)
    _show(link, as_json=as_json)


@app.command()
def delete(code: Code, state: State = STATE_FOLDER) -> None:
    """Delete a link: its code answers 410 from now on."""
    with open_client(state) as client:
        client.delete_link(code)
    say(f"deleted {code}")


@app.command()
def restore(
    code: Code,
    if_version: IfVersion = 0,
    idempotency_key: IdempotencyKey = "",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Bring a deleted link back as it was, and show it."""
    with open_client(state) as client:
        link = client.restore_link(code, if_version=if_version, idempotency_key=idempotency_key)
    _show(link, as_json=as_json)


@app.command()
def history(code: Code, state: State = STATE_FOLDER, as_json: Json = False) -> None:
    """Show everything that happened to a link, newest last."""
    events: list[dict[str, object]] = []
    with open_client(state) as client:
        page = client.link_events(code, page_size="100")
        while isinstance(items := page["items"], list) and items:
            events += items
            if not page["next_page_token"]:
                break
            page = client.link_events(code, page_size="100", page_token=str(page["next_page_token"]))
    show(events, lambda: table([_row(event) for event in events]), as_json=as_json)
    last = events[-1]["version"] if events else 0
    if last != page["current_version"]:
        note(f"the link is at version {page['current_version']}: its newest events are not in the table yet")


def _show(link: dict[str, object], *, as_json: bool) -> None:
    show(link, lambda: "\n".join(f"{name:16} {_text(value)}" for name, value in link.items()), as_json=as_json)


def _row(event: dict[str, object]) -> tuple[str, ...]:
    changes = event["changes"]
    assert isinstance(changes, dict), "see docs/CONTRACTS.md"
    told = "; ".join(f"{field}: {_text(change['old'])} -> {_text(change['new'])}" for field, change in changes.items())
    return f"{event['version']}", f"{event['at']}", f"{event['type']}", told


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in (None, "") else str(value)
