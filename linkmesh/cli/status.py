"""`linkmesh status` and `linkmesh logs`: what runs, and what it says."""

import time
from typing import Annotated

import typer

from linkmesh.cli.broker import quieten
from linkmesh.cli.terminal import NOT_FOUND, STATE_FOLDER, Json, State, fail, running_state, say, show, table

_READ_BYTES_MAX = 4 << 20


def status(state: State = STATE_FOLDER, as_json: Json = False) -> None:
    """Show every engine and service, what each group is behind and gave up on, and what waits. Exit 3: nothing runs."""
    from linkmesh.local.control import ask
    from linkmesh.local.dead_letters import counted_now
    from linkmesh.local.lag import worst_now
    from linkmesh.local.outbox import as_json as as_json_outbox
    from linkmesh.local.outbox import outbox_now
    from linkmesh.local.readiness import reasons
    from linkmesh.local.spool import as_json as as_json_spool
    from linkmesh.local.spool import spool_now

    quieten()
    about = ask(running_state(state), "status")
    members = about["members"]
    assert isinstance(members, list), "see control.py"
    for member in members:
        member["memory_mb"] = _memory_mb(member["pid"])
    about["not_ready"] = unready = reasons(about)
    about["lag"] = lag = worst_now(about)
    letters = counted_now(about) if lag is not None else None
    about["dead_letters"] = letters
    waiting = outbox_now(about)
    about["outbox"] = as_json_outbox(waiting)
    spooled = spool_now(about)
    about["spool"] = as_json_spool(spooled)

    def text() -> str:
        rows = [("name", "state", "pid", "restarts", "memory")]
        rows += [
            (m["name"], m["state"], str(m["pid"] or "-"), str(m["restarts"]), f"{m['memory_mb']} MB") for m in members
        ]
        total = sum(m["memory_mb"] for m in members)
        return "\n".join(
            (
                table(rows),
                "",
                _lag_table(lag),
                _dead_letters(letters),
                waiting.sentence() if waiting else "the outbox is unknown: link_service does not answer",
                spooled.sentence() if spooled else "the click spool is unknown: the gateway does not answer",
                "",
                f"{_readiness(about['ready'], members)}, {total} MB in all",
                *(f"  {name}: {condition}: {why}" for name, all_ in unready.items() for condition, why in all_.items()),
            )
        )

    show(about, text, as_json=as_json)


def logs(
    name: Annotated[str, typer.Argument(help="A service or engine: gateway, kafka …")],
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    state: State = STATE_FOLDER,
) -> None:
    """Print what a process wrote."""
    folder = running_state(state) / "logs"
    path = folder / f"{name}.log"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.log")))
        fail(f"there is no log of {name}", f"one of: {known}" if known else "start it: linkmesh up", NOT_FOUND)
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _READ_BYTES_MAX))
        for line in log.read().decode(errors="replace").splitlines()[-lines:]:
            say(line)
        while follow:
            if fresh := log.read().decode(errors="replace"):
                typer.echo(fresh, nl=False)
            time.sleep(0.2)


def _lag_table(lag: list[dict[str, object]] | None) -> str:
    """Return the worst lag of each group."""
    if lag is None:
        return "lag is unknown: Kafka does not answer\n"
    rows = [("group", "worst lag", "records", "")]
    rows += [(str(row["group"]), f"{row['seconds']:.1f} s", str(row["records"]), str(row["level"])) for row in lag]
    return table(rows) + "\n"


def _readiness(started: object, members: list[dict[str, object]]) -> str:
    """Return in a word whether all is well, and otherwise who is not."""
    if not started:
        return "not ready yet"
    behind = [str(member["name"]) for member in members if member["state"] != "running"]
    return f"not ready: {', '.join(behind)}" if behind else "ready"


def _dead_letters(letters: list[dict[str, object]] | None) -> str:
    """Return what each group gave up on within the hour."""
    if letters is None:
        return "dead letters are unknown: Kafka does not answer\n"
    if not letters:
        return "no dead letters within the hour\n"
    rows = [("group", "dead letters within the hour", "", "")]
    rows += [
        (str(x["group"]), str(x["last_hour"]), str(x["severity"]),
         f"stopped: linkmesh dlq list, then linkmesh dlq resume {x['group']}" if x["stopped"] else "")
        for x in letters
    ]  # fmt: skip
    return table(rows) + "\n"


def _memory_mb(pid: int | None) -> int:
    """Return a process's resident memory."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss / 1e6) if pid else 0
    except psutil.Error:
        return 0
