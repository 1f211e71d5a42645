"""`linkmesh stats CODE`."""

from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, Json, State, open_client, show


def stats(
    code: Annotated[str, typer.Argument(help="The short code.")],
    granularity: Annotated[str, typer.Option(help="hour or day.")] = "hour",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show how often a link was followed."""
    with open_client(state) as client:
        counted = client.stats(code, granularity=granularity)
    show(counted, lambda: _text(counted), as_json=as_json)


def _text(counted: dict[str, object]) -> str:
    clicks, series = counted.get("clicks"), counted.get("series")
    assert isinstance(clicks, dict), "see docs/CONTRACTS.md"
    lines = [
        f"{clicks.get('total', 0)} clicks: {clicks.get('human', 0)} by people, {clicks.get('bot', 0)} by bots",
        f"{counted.get('unique_visitors', 0)} visitors, {counted.get('prefetches', 0)} prefetches",
        f"counted until {counted.get('counted_until') or '-'}",
    ]
    points = series if isinstance(series, list) else []
    return "\n".join([*lines, *(f"  {point['start']}  {point['clicks']}" for point in points)])
