"""`linkmesh stats CODE`: how often a link was followed, and by whom; with `--watch` as it happens."""

import json
import time
from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, USAGE, Json, State, fail, note, open_client, say, show, table

GROUPS = ("country", "referrer", "browser", "os", "device")
_AGAIN_S = 1.0
_BAR_CELLS = 30


def stats(
    code: Annotated[str, typer.Argument(help="The short code.")],
    granularity: Annotated[str, typer.Option(help="hour or day.")] = "hour",
    group_by: Annotated[str, typer.Option(help=f"One of: {', '.join(GROUPS)}.")] = "",
    tz: Annotated[str, typer.Option(help="Zone whose days are meant (Europe/Berlin); UTC.")] = "",
    since: Annotated[str, typer.Option("--from", help="From this time on (RFC 3339); 30 days ago.")] = "",
    until: Annotated[str, typer.Option("--to", help="Until this time (RFC 3339); now.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show clicks as they happen, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="With --watch: end after so many clicks; 0: never.")] = 0,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show how often a link was followed."""
    if limit and not watch:
        fail("--limit goes with --watch", code=USAGE)
    if watch:
        _watch(code, limit, state, as_json=as_json)
        return
    query = {"granularity": granularity, "group_by": group_by, "tz": tz, "from": since, "to": until}
    with open_client(state) as client:
        counted = client.stats(code, **{name: value for name, value in query.items() if value})
    show(counted, lambda: _text(counted), as_json=as_json)


def _text(counted: dict[str, object]) -> str:
    clicks, series, groups = counted.get("clicks"), counted.get("series"), counted.get("groups")
    assert isinstance(clicks, dict), "see docs/CONTRACTS.md"
    lines = [
        f"{clicks.get('total', 0)} clicks: {clicks.get('human', 0)} by people, {clicks.get('bot', 0)} by bots",
        f"{counted.get('unique_visitors', 0)} visitors, {counted.get('prefetches', 0)} prefetches",
        f"counted until {counted.get('counted_until') or '-'}",
    ]
    points = series if isinstance(series, list) else []
    lines += [f"  {point['start']}  {point['clicks']}" for point in points]
    if isinstance(groups, list) and groups:
        most = max(group["clicks"] for group in groups)
        rows = [(f"  {group['value']}", str(group["clicks"]), _bar(group["clicks"], most)) for group in groups]
        lines += ["", table(rows)]
    return "\n".join(lines)


def _bar(clicks: int, most: int) -> str:
    return "█" * max(1, round(_BAR_CELLS * clicks / most)) if clicks else ""


def _watch(code: str, limit: int, state: State, *, as_json: bool) -> None:
    """Until Ctrl-C or the last click. A stream that ends is begun again; the first one must come about."""
    from linkmesh.client import Unreachable

    seen, begun = 0, False

    def opened() -> None:
        nonlocal begun
        begun = True
        note(f"watching {code} from now on; Ctrl-C ends it")

    with open_client(state) as client:
        while True:
            try:
                for name, data in client.watch_clicks(code, opened):
                    say(json.dumps({"event": name} | data) if as_json else _line(name, data))
                    seen += name == "click"
                    if limit and seen >= limit:
                        return
            except Unreachable as error:
                if not begun:
                    raise
                note(str(error))
            time.sleep(_AGAIN_S)


def _line(name: str, data: dict[str, object]) -> str:
    match name:
        case "click":
            about = ("visitor_class", "country", "referrer", "browser", "os", "device")
            return "  ".join(str(value) for value in (data["at"], *(data[field] for field in about)) if value)
        case "missed":
            return f"({data['clicks']} more clicks)"
        case "interrupted":
            return "(interrupted: clicks may be missing, or be shown again)"
    return f"({data.get('detail') or name})"
