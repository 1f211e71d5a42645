"""`linkmesh dlq list|show|replay|purge|resume`: what consumers gave up on, and what to do about it."""

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli import dlq_text as text
from linkmesh.cli.broker import explained, find_broker
from linkmesh.cli.progress import counted
from linkmesh.cli.terminal import FAILED, NOT_FOUND, STATE_FOLDER, USAGE, Json, State, fail, note, say, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import TypeVar

    from chassis.kafka.dead_letter_store import DeadLetterStore, Replayed
    from chassis.kafka.letters import Contents, Selection

    Result = TypeVar("Result")

app = typer.Typer(help="Dead letters: records that a consumer group gave up on.", no_args_is_help=True)

Group = Annotated[str, typer.Option(help="Only letters of this group.")]
Reason = Annotated[str, typer.Option(help="Only with this reason: undecodable, conflict …")]
Code = Annotated[str, typer.Option(help="Only of this link key: the code, or host/code.")]
Since = Annotated[str, typer.Option(help="Only buried from then on: 2h, 30m, 7d, or a time in RFC 3339.")]
Until = Annotated[str, typer.Option(help="Only buried before then; as --since.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Letters by their id, as `list` shows it; none: all that match.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command("list")
def list_(
    group: Group = "",
    reason: Reason = "",
    code: Code = "",
    since: Since = "",
    until: Until = "",
    everything: Annotated[bool, typer.Option("--all", help="Also those that were replayed, and copies.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show the letters that wait, and how many there were in each hour."""
    from chassis.kafka.letters import Fate
    from linkmesh.local.dead_letters import stopped_now

    wanted = _selection(None, group, reason, code, since, until)
    contents = _read(state)
    stopped = {name for name in stopped_now(find_broker(state)[1]) if group in ("", name)}
    matching = [letter for letter in contents.letters if wanted.picks(letter)]
    shown = [letter for letter in matching if everything or letter.fate in (Fate.WAITING, Fate.CLAIMED, Fate.CUT)]
    summary = text.summary(contents, matching, now_ms=_now_ms(), stopped_too=stopped)
    result = {"letters": [text.brief(letter) for letter in shown[-limit:]], "matching": len(shown), **summary}
    show(result, lambda: text.listing(shown, limit, summary), as_json=as_json)


@app.command("show")
def show_(
    letter: Annotated[str, typer.Argument(help="The letter's id, as `list` shows it.")],
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Show one letter in full: its story, the record's headers and what it says."""
    found = next((held for held in _read(state).letters if held.id == letter), None)
    if found is None:
        fail(f"there is no letter {letter}", "linkmesh dlq list --all", NOT_FOUND)
    show(text.full(found), lambda: text.page(found), as_json=as_json)


@app.command()
def replay(
    ids: Ids = None,
    group: Group = "",
    reason: Reason = "",
    code: Code = "",
    since: Since = "",
    until: Until = "",
    dry_run: DryRun = False,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Send records once more to the group that failed on them, and to no other. Each letter is sent once, ever."""
    from chassis.kafka.letters import Fate

    open_fates = frozenset({Fate.WAITING, Fate.CLAIMED})
    wanted = replace(_selection(ids, group, reason, code, since, until), fates=open_fates)
    contents = _read(state)
    _check_ids(ids, contents)
    letters = [letter for letter in contents.letters if wanted.picks(letter)]
    if cut := sum(replace(wanted, fates=frozenset({Fate.CUT})).picks(letter) for letter in contents.letters):
        note(f"{cut} are left alone: too large to be buried whole, their records are only in the topic they came from")
    if sent := sum(letter.id in (ids or ()) and letter.fate is Fate.REPLAYED for letter in contents.letters):
        note(f"{sent} are left alone: they were replayed before, and no letter is sent twice")
    if dry_run:
        result: dict[str, object] = {"dry_run": True, "letters": [text.brief(letter) for letter in letters]}
        show(result, lambda: text.table_of(letters, f"{len(letters)} would be replayed"), as_json=as_json)
        return
    if any(letter.fate is Fate.CLAIMED for letter in letters):
        note("an earlier call did not end: waiting up to 15 s, then looking for what it sent")
    replayed = _replayed(state, wanted, len(letters))
    done = {"sent": replayed.sent, "found_sent": replayed.found_sent, "elsewhere": replayed.elsewhere}
    show(done, lambda: text.replayed(replayed), as_json=as_json)


@app.command()
def purge(
    ids: Ids = None,
    group: Group = "",
    reason: Reason = "",
    code: Code = "",
    since: Since = "",
    until: Until = "",
    replayed: Annotated[bool, typer.Option("--replayed", help="Only those that were replayed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Delete letters for ever, from the front of each partition up to the first one that is not meant."""
    from chassis.kafka.letters import Fate, plan_purge

    wanted = _selection(ids, group, reason, code, since, until)
    if replayed:
        wanted = replace(wanted, fates=frozenset({Fate.REPLAYED, Fate.COPY}))
    contents = _read(state)
    _check_ids(ids, contents)
    plan = plan_purge(contents, wanted, now_ms=_now_ms())
    done = {"dry_run": dry_run, "deleted": len(plan.letters), "kept": len(plan.kept)}
    if dry_run:
        show(done, lambda: text.table_of(plan.letters, text.purged(plan, "would be deleted")), as_json=as_json)
        return
    if plan.letters and not yes:
        _confirm(text.purged(plan, "will be deleted for ever"))
    with counted("deleting", len(plan.position)) as advance, explained(code=FAILED):
        _call(state, lambda store: store.purge(plan))
        advance(len(plan.position))
    show(done, lambda: text.purged(plan, "deleted"), as_json=as_json)


@app.command()
def resume(
    group: Annotated[str, typer.Argument(help="The group that has stopped itself: database-writer …")],
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Let a group go on that stopped because of too many dead letters in an hour."""
    from chassis.kafka.dead_letter_counts import last_hour
    from contracts.topics import GROUPS, WITH_DEAD_LETTERS

    known = {name: topics for name, topics in GROUPS.items() if set(topics) & set(WITH_DEAD_LETTERS)}
    if group not in known:
        fail(f"there is no group {group} with dead letters", f"one of: {', '.join(known)}", NOT_FOUND)
    count = last_hour(_read(state), group, now_ms=_now_ms())
    with explained(code=FAILED):
        _call(state, lambda store: store.resume(group, known[group]))
    result = {"group": group, "dead_letters_last_hour": count}
    sentence = f"{group} goes on within 5 s, if it had stopped: {count} dead letters counted, now 0"
    show(result, lambda: sentence, as_json=as_json)


def _selection(ids: list[str] | None, group: str, reason: str, code: str, since: str, until: str) -> "Selection":
    from chassis.kafka.letters import Selection
    from contracts.topics import GROUPS

    if group and group not in GROUPS:
        fail(f"there is no group {group}", f"one of: {', '.join(GROUPS)}", NOT_FOUND)
    try:
        since_ms, until_ms = text.moment_ms(since, now_ms=_now_ms()), text.moment_ms(until, now_ms=_now_ms())
    except ValueError as error:
        fail(str(error), "such as 30m, 2h, 7d, 2026-01-31T12:00:00Z", USAGE)
    return Selection(
        ids=frozenset(ids or ()), group=group or None, reason=reason or None, code=code or None,
        since_ms=since_ms, until_ms=until_ms,
    )  # fmt: skip


def _check_ids(ids: list[str] | None, contents: "Contents") -> None:
    """End where a letter is named that does not exist: a slip of the pen is no success."""
    if unknown := sorted(set(ids or ()) - {letter.id for letter in contents.letters}):
        fail(f"there is no letter {', '.join(unknown)}", "linkmesh dlq list --all", NOT_FOUND)


def _replayed(state: "Path", wanted: "Selection", total: int) -> "Replayed":
    with counted("replaying", total) as advance, explained("what was sent is remembered; repeat the command", FAILED):
        return _call(state, lambda store: store.replay(wanted, advance))


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        fail(question, "nothing was done: say --yes", USAGE)
    if not typer.confirm(f"{question}. Go on?"):
        say("nothing was done")
        raise typer.Exit


def _read(state: "Path") -> "Contents":
    with explained():
        return _call(state, lambda store: store.read())


def _call(state: "Path", work: "Callable[[DeadLetterStore], Awaitable[Result]]") -> "Result":
    from chassis.clock import SystemClock
    from chassis.kafka.dead_letter_store import open_dead_letter_store
    from contracts.topics import WITH_DEAD_LETTERS

    bootstrap, _ = find_broker(state)

    async def call() -> "Result":
        async with open_dead_letter_store(bootstrap, WITH_DEAD_LETTERS, clock=SystemClock()) as store:
            return await work(store)

    return asyncio.run(call())


def _now_ms() -> int:
    from chassis.clock import SystemClock

    return int(SystemClock().now().timestamp() * 1000)
