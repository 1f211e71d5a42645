"""`linkmesh top`: the account's most followed links; live on a terminal."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, open_client, show, table

if TYPE_CHECKING:
    from rich.table import Table

    from linkmesh.client import Client

_HEAD = ("link", "clicks", "new")
_BAR_CELLS = 30
_PAGE_MAX = 100
_FRAME_LINES = 4  # what the live table needs besides its rows


def top(
    since: Annotated[str, typer.Option("--from", help="From this day on (2026-01-31T00:00:00Z); 30 days ago.")] = "",
    until: Annotated[str, typer.Option("--to", help="Until this day (2026-01-31T00:00:00Z); today.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=_PAGE_MAX, help="How many links.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="One look, also on a terminal.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between looks.")] = 1.0,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show the most followed links of the account, the present included."""
    query = {"from": since, "to": until, "page_size": str(limit)}
    query = {name: value for name, value in query.items() if value}
    with open_client(state) as client:
        if once or as_json or not sys.stdout.isatty():
            found = client.top_links(**query)
            show(found, lambda: text(found), as_json=as_json)
        else:
            _watch(client, query, interval)


def text(found: dict[str, object]) -> str:
    """Return one look."""
    links = links_of(found)
    lines = [table([_HEAD[:2], *((code, str(clicks)) for code, clicks in links)])] if links else ["no clicks yet"]
    if found["other_clicks"]:
        lines.append(f"{found['other_clicks']} clicks on further links")
    return "\n".join([*lines, f"counted until {found['counted_until'] or '-'}"])


def links_of(found: dict[str, object]) -> list[tuple[str, int]]:
    """Return the links of an answer and their clicks."""
    items = found["items"]
    assert isinstance(items, list), "see docs/CONTRACTS.md"
    return [(str(item["short_code"]), int(item["clicks"])) for item in items]


def news(before: dict[str, int], links: list[tuple[str, int]]) -> dict[str, int]:
    """Return how many clicks each link has got since the look before; a link that is new in the list: all of them."""
    return {code: clicks - before.get(code, 0) for code, clicks in links} if before else {}


def _watch(client: "Client", query: dict[str, str], interval_s: float) -> None:
    """Until Ctrl-C. A gateway that goes away is said below the last table; it goes on when it is back."""
    from rich.console import Console
    from rich.live import Live

    from linkmesh.client import Problem, Unreachable

    console, found, problem = Console(), client.top_links(**query), ""
    before: dict[str, int] = {}
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            links = links_of(found)
            live.update(_drawn(found, news(before, links), problem, console.height), refresh=True)
            time.sleep(interval_s)
            before = dict(links)
            try:
                found, problem = client.top_links(**query), ""
            except (Unreachable, Problem) as error:
                problem = str(error)


def _drawn(found: dict[str, object], new: dict[str, int], problem: str, height: int) -> "Table":
    from rich.table import Table

    links = links_of(found)[: max(1, height - _FRAME_LINES)]
    most = max((clicks for _, clicks in links), default=1) or 1
    caption = problem or f"counted until {found['counted_until'] or '-'}"
    drawn = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for title in _HEAD:
        drawn.add_column(title, no_wrap=True, justify="left" if title == "link" else "right")
    drawn.add_column("")
    for code, clicks in links:
        fresh = f"[green]+{new[code]}[/]" if new.get(code) else ""
        drawn.add_row(code, str(clicks), fresh, f"[cyan]{'█' * max(1, round(_BAR_CELLS * clicks / most))}[/]")
    return drawn
