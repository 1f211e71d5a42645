"""`linkmesh trace CODE`: each hop of what happened to a link, with times."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.terminal import NOT_FOUND, STATE_FOLDER, Json, State, fail, running_state, show

if TYPE_CHECKING:
    from linkmesh.local.traces import LinkTrace


def trace(
    code: Annotated[str, typer.Argument(help="The short code.")], state: State = STATE_FOLDER, as_json: Json = False
) -> None:
    """Show the traces of a link's events and of its newest requests."""
    from linkmesh.local.control import ask
    from linkmesh.local.traces import traces_of_link

    addresses = ask(running_state(state), "status")["addresses"]
    assert isinstance(addresses, dict), "see LocalSystem.about"
    if "zipkin" not in addresses:
        fail("traces are off", "start it without --no-traces")
    found = asyncio.run(traces_of_link(dynamodb=addresses["dynamodb"], zipkin=addresses["zipkin"], code=code))
    if not found:
        fail(f"nothing is known about {code}", "events are stored some 100 ms after the answer", NOT_FOUND)
    show([asdict(trace) for trace in found], lambda: "\n\n".join(_text(trace) for trace in found), as_json=as_json)


def _text(found: "LinkTrace") -> str:
    lines = [f"{found.what}  {found.at}".rstrip(), f"  {found.page or 'its trace was not sampled'}"]
    for hop in found.hops:
        failed = f"  failed: {hop.error}" if hop.error else ""
        name = f"{'  ' * hop.depth}{hop.service}: {hop.name}"
        lines.append(f"  {hop.after_ms:9.1f} ms  {hop.duration_ms:8.1f} ms  {name}{failed}")
    return "\n".join(lines)
