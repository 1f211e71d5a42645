"""`linkmesh rebuild CODE|--all|--from-kafka`: the table's rows, made again from the events."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.broker import explained
from linkmesh.cli.progress import counted, counting
from linkmesh.cli.terminal import (
    FAILED,
    NOT_FOUND,
    STATE_FOLDER,
    USAGE,
    Json,
    State,
    development,
    fail,
    held_state,
    open_client,
    running_state,
    show,
)

if TYPE_CHECKING:
    from pathlib import Path

    from linkmesh.local.rebuilding import Rebuilt
    from writer.loops import Replayed

_SHOWN = 20  # links that a person is told by name


def rebuild(
    code: Annotated[str, typer.Argument(help="The short code.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="All links of all accounts, from their event rows.")
    ] = False,
    page_token: Annotated[str, typer.Option(help="With --all: go on where a call stopped.")] = "",
    from_kafka: Annotated[
        bool, typer.Option("--from-kafka", help="All rows, from the topic: into a table that was lost or restored.")
    ] = False,
    since: Annotated[str, typer.Option(help="With --from-kafka: only events stored since (2h, 7d or a time).")] = "",
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Repair rows of the table from events, and say what was wrong. Safe to repeat, also beside a system at work."""
    if [bool(code), everything, from_kafka].count(True) != 1:
        fail("what shall be rebuilt?", "one of: a code, --all, --from-kafka", USAGE)
    if (page_token and not everything) or (since and not from_kafka):
        fail("--page-token goes with --all, --since with --from-kafka", code=USAGE)
    if everything:
        _all(state, page_token, as_json=as_json)
    elif from_kafka:
        _from_kafka(state, since, as_json=as_json)
    else:
        with open_client(state) as client:
            told = client.rebuild_link(code)
        show(told, lambda: _text(code, told["changes"]), as_json=as_json)


def _text(code: str, changes: object) -> str:
    assert isinstance(changes, dict), "see docs/CONTRACTS.md"
    if not changes:
        return f"{code} is as its events say"
    return "\n".join(
        [f"repaired {code}", *(f"  {field}: {one['old']} -> {one['new']}" for field, one in changes.items())]
    )


def _all(state: "Path", page_token: str, *, as_json: bool) -> None:
    """Rebuild page by page; exit 1 if a link needs a person or it stopped before the end."""
    from chassis.errors import ServiceError

    try:
        done = asyncio.run(_rebuild_all(state, page_token))
    except ServiceError as error:
        fail(error.message)
    result = {"rebuilt": done.rebuilt, "unchanged": done.unchanged, "failed": done.failures,
              "stopped": done.stopped, "next_page_token": done.page_token}  # fmt: skip
    show(result, lambda: _all_text(done), as_json=as_json)
    if done.stopped:
        onward = f" --page-token {done.page_token!r}" if done.page_token else ""
        fail(f"stopped: {done.stopped}", f"go on with: linkmesh rebuild --all{onward}")
    if done.failures:
        raise typer.Exit(FAILED)


async def _rebuild_all(state: "Path", page_token: str) -> "Rebuilt":
    from linkmesh.local import rebuilding

    if target := os.environ.get("LINKMESH_LINK_SERVICE"):
        calls = rebuilding.by_key(target, os.environ.get("LINKMESH_API_KEY", ""))
    elif target := development(state).get("link_service"):
        calls = rebuilding.as_owner(held_state(state), target)
    else:
        fail("no system ever ran here", "start it (linkmesh up), or set LINKMESH_LINK_SERVICE", NOT_FOUND)
    async with calls as call:
        with counting("rebuilding links") as advance:
            return await rebuilding.rebuild_all(call, page_token, advance)


def _all_text(done: "Rebuilt") -> str:
    lines = [f"{done.rebuilt} rebuilt, {done.unchanged} unchanged, {len(done.failures)} failed"]
    for failed in done.failures[:_SHOWN]:
        name = "/".join(filter(None, (failed["domain"], failed["short_code"])))
        lines.append(f"  {name}: {failed['detail']} ({failed['code']})")
    return "\n".join(lines)


def _from_kafka(state: "Path", since: str, *, as_json: bool) -> None:
    """Replay the topic; exit 1 if a link's newest event is not in the table, or met another one there."""
    from botocore.exceptions import BotoCoreError

    from chassis.clock import SystemClock
    from linkmesh.cli.dlq_text import moment_ms

    now = SystemClock().now()
    try:
        since_ms = moment_ms(since, now_ms=int(now.timestamp() * 1000))
    except ValueError as error:
        fail(str(error), "an age such as 2h or 7d, or a time such as 2026-05-01T12:00:00Z", USAGE)
    kafka, redis, dynamodb = _stores(state)
    try:
        with explained("what was replayed stays; repeat the command", FAILED):
            done = asyncio.run(_replay(kafka, redis, dynamodb, since_ms))
    except BotoCoreError as error:  # of the settings: a call that failed is an Unavailable
        fail(f"the database cannot be used: {error}", "LINKMESH_DYNAMODB is its endpoint; without it, AWS", USAGE)
    result = {"records": done.records, "links": done.links, "rejected": dict(done.rejected),
              "headless": done.headless, "missing": done.missing}  # fmt: skip
    show(result, lambda: _replay_text(done), as_json=as_json)
    if done.missing or done.rejected["conflict"]:
        raise typer.Exit(FAILED)


async def _replay(kafka: str, redis: str, dynamodb: str, since_ms: int | None) -> "Replayed":
    from datetime import UTC, datetime

    from writer.app import open_replay

    since = None if since_ms is None else datetime.fromtimestamp(since_ms / 1000, UTC)
    async with open_replay(kafka=kafka, redis=redis, dynamodb=dynamodb) as replay:
        spans = await replay.spans(since=since)
        with counted("replaying events", sum(span.end - span.begin for span in spans)) as advance:
            return await replay.run(spans, advance)


def _stores(state: "Path") -> tuple[str, str, str]:
    """Return where Kafka, Redis and DynamoDB are: by the environment, else those of the system that runs here."""
    from linkmesh.local.control import ask

    if kafka := os.environ.get("LINKMESH_KAFKA"):
        redis = os.environ.get("LINKMESH_REDIS", "")
        if not redis:
            fail("LINKMESH_KAFKA without LINKMESH_REDIS", "the writer's own variables, all of them", USAGE)
        return kafka, redis, os.environ.get("LINKMESH_DYNAMODB", "")
    addresses = ask(running_state(state), "status")["addresses"]
    assert isinstance(addresses, dict), "see LocalSystem.about"
    return str(addresses["kafka"]), str(addresses["redis"]), str(addresses["dynamodb"])


def _replay_text(done: "Replayed") -> str:
    lines = [f"{done.records} events of {done.links} links replayed"]
    for reason, count in sorted(done.rejected.items()):
        lines.append(f"  {count} rejected: {reason}")
    for what, keys in (("the table lacks the newest version of", done.missing), ("no first event of", done.headless)):
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            lines.append(f"  {what} {', '.join(keys[:_SHOWN])}{more}")
    if not done.missing:
        lines.append("every link is in the table at its newest version")
    return "\n".join(lines)
