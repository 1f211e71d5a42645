"""`linkmesh up` and `linkmesh down`: the whole system on this machine, started by one command, drained by Ctrl-C."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.terminal import FAILED, STATE_FOLDER, USAGE, Json, State, fail, note, running_state, say

if TYPE_CHECKING:
    from linkmesh.local.options import Options

_DETACH_TIMEOUT_S = 600.0  # the first start fetches the engines
_DOWN_TIMEOUT_S = 90.0
_CURL_BODY = "-H 'content-type: application/json' -d '{\"long_url\": \"https://example.com/\"}'"


class Engines(StrEnum):
    """Whose Kafka, Redis and DynamoDB are used."""

    OWN = "own"
    EXTERNAL = "external"


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it is ready; `linkmesh down` stops it.")
    ] = False,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Start empty, and keep nothing.")] = False,
    engines: Annotated[Engines, typer.Option(help="external: LINKMESH_KAFKA, LINKMESH_REDIS say where.")] = Engines.OWN,
    no_traces: Annotated[bool, typer.Option("--no-traces", help="Without Zipkin.")] = False,
    gateway_port: Annotated[int | None, typer.Option(help="Public port of the gateway.")] = None,
    port: Annotated[list[str] | None, typer.Option(help="Move one port: NAME=NUMBER (kafka=19092).")] = None,
    port_offset: Annotated[int, typer.Option(help="Move all ports by so much.")] = 0,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Take any free ports.")] = False,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Start engines and services, and keep them running until Ctrl-C."""
    from linkmesh.local.options import Options, choose_ports

    moved = _moved(port or []) | ({"gateway": gateway_port} if gateway_port else {})
    folder = (state / "ephemeral" if ephemeral else state).absolute()
    if detach:
        _detach(folder, as_json=as_json)
        return
    options = Options(
        state=folder,
        ports=choose_ports(moved=moved, offset=port_offset, free=free_ports),
        engines=engines.value,
        traces=not no_traces,
        settings={name: value for name, value in os.environ.items() if name.startswith("LINKMESH_")},
    )
    if ephemeral:
        _clear(folder)
    try:
        asyncio.run(_up(options, as_json=as_json))
    except asyncio.CancelledError:
        note("stopped before it was ready")
        sys.exit(130)
    finally:
        if ephemeral:
            shutil.rmtree(folder, ignore_errors=True)


def down(state: State = STATE_FOLDER) -> None:
    """Drain and stop what `up` started; also what a killed `up` left behind."""
    from linkmesh.local.control import NotRunning, ask
    from linkmesh.local.process import end_strays

    folder = running_state(state)
    try:
        pid = int(str(ask(folder, "status")["pid"]))
        ask(folder, "down")
    except NotRunning:
        strays = end_strays(folder / "run")
        say(f"ended what was left behind: {', '.join(strays)}" if strays else "nothing is running")
        return
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    while _lives(pid):
        if time.monotonic() > deadline:
            fail(f"process {pid} does not end", f"see {folder / 'logs' / 'supervisor.log'}")
        time.sleep(0.1)
    say("stopped")


def _clear(folder: Path) -> None:
    """Remove what an ephemeral system that was killed left behind, its processes included.

    Raises:
        LocalError: a system runs there; its data is not ours to remove.
    """
    from linkmesh.local.alone import already_runs, is_held
    from linkmesh.local.process import end_strays

    if is_held(folder):
        raise already_runs(folder)
    end_strays(folder / "run")
    shutil.rmtree(folder, ignore_errors=True)


async def _up(options: "Options", *, as_json: bool) -> None:
    from linkmesh.cli.progress import Bar
    from linkmesh.local.supervisor import LocalSystem

    system = LocalSystem(options, note, Bar())
    task = asyncio.current_task()
    assert task is not None, "this is one"
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            system.kill_all()
            os._exit(130)
        if not system.ready:
            task.cancel()
        system.stop_asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    began = time.monotonic()
    async with system:
        say(json.dumps(system.about()) if as_json else _welcome(system.about(), time.monotonic() - began))
        await system.stop_asked.wait()
        note("draining and stopping (once more Ctrl-C: at once)")


def _welcome(about: dict[str, object], seconds: float) -> str:
    """Return what a person wants to know once it runs."""
    addresses = about["addresses"]
    assert isinstance(addresses, dict), "see LocalSystem.about"
    lines = [f"linkmesh is up after {seconds:.1f} s"]
    lines += [f"  {name:9} {address}" for name, address in addresses.items()]
    if key := about.get("api_key"):
        lines += [
            "make a link:",
            f"  curl -sS {addresses['gateway']}/api/links -H 'authorization: Bearer {key}' {_CURL_BODY}",
            f"a link to follow:  {addresses['gateway']}/{about['demo_code']}",
        ]
    if trace := about.get("demo_trace"):
        lines.append(f"its trace:         {trace}")
    return "\n".join(lines)


def _detach(folder: Path, *, as_json: bool) -> None:
    """Start the same command in the background and return when it is ready."""
    from linkmesh.local.control import NotRunning, ask
    from linkmesh.local.errors import LocalError

    log = folder.parent / "up.log" if folder.name == "ephemeral" else folder / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--detach", "--json")]
    log.unlink(missing_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # the development key will stand there
    with os.fdopen(descriptor, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "linkmesh.cli.main", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    began, told = time.monotonic(), 0
    while process.poll() is None and time.monotonic() < began + _DETACH_TIMEOUT_S:
        try:
            about = ask(folder, "status")
        except (NotRunning, LocalError):
            about = {}
        if about.get("ready") and about.get("pid") == process.pid:
            say(json.dumps(about) if as_json else _welcome(about, time.monotonic() - began))
            return
        told = _relay(log, told)
        time.sleep(0.2)
    if process.poll() is None:
        process.terminate()
    _relay(log, told)
    sys.exit(FAILED)


def _relay(log: Path, told: int) -> int:
    """Show what the system in the background said since; returns how much was shown."""
    with log.open("rb") as said:
        said.seek(told)
        fresh = said.read()
    sys.stderr.write(fresh.decode(errors="replace"))
    sys.stderr.flush()
    return told + len(fresh)


def _moved(given: list[str]) -> dict[str, int]:
    moved = {}
    for text in given:
        name, _, number = text.partition("=")
        if not number.isdigit():
            fail(f"--port {text} is not NAME=NUMBER", code=USAGE)
        moved[name] = int(number)
    return moved


def _lives(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
