"""`linkmesh kill|pause|resume|start`: break a running system on purpose, and see that it heals."""

import time
from typing import Annotated

import typer

from linkmesh.cli.terminal import STATE_FOLDER, State, running_state, say

Name = Annotated[str, typer.Argument(help="A service or engine: writer, kafka …")]


def kill(
    name: Name,
    stay_down: Annotated[bool, typer.Option("--stay-down", help="Until `linkmesh start NAME`.")] = False,
    state: State = STATE_FOLDER,
) -> None:
    """kill -9 a process; it is started again after half a second."""
    from linkmesh.local.control import ask

    ask(running_state(state), "kill-and-hold" if stay_down else "kill", name)
    say(f"killed {name}" + ("; it stays down" if stay_down else ""))


def pause(
    name: Name,
    seconds: Annotated[float | None, typer.Option(min=0, max=3600, help="Resume it after so long.")] = None,
    state: State = STATE_FOLDER,
) -> None:
    """Freeze a process: it hangs, its connections stay open."""
    from linkmesh.local.control import ask

    ask(running_state(state), "pause", name)
    say(f"paused {name}")
    if seconds is not None:
        try:
            time.sleep(seconds)
        finally:
            resume(name, state)


def resume(name: Name, state: State = STATE_FOLDER) -> None:
    """Let a paused process go on."""
    from linkmesh.local.control import ask

    ask(running_state(state), "resume", name)
    say(f"resumed {name}")


def start(name: Name, state: State = STATE_FOLDER) -> None:
    """Start a process that was left down, and wait until it is ready."""
    from linkmesh.local.control import ask

    ask(running_state(state), "start", name)
    say(f"{name} is ready")
