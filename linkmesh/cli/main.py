"""The command `linkmesh`: puts the commands together and turns errors into one line and an exit code."""

import importlib.metadata
import importlib.util
import sys
from typing import Annotated

import typer

from linkmesh.cli import (
    audit,
    dlq,
    doctor,
    faults,
    fetch,
    key,
    lag,
    link,
    plan,
    rebuild,
    reconcile,
    stats,
    status,
    top,
    trace,
    up,
    webhook,
)
from linkmesh.cli.terminal import FAILED, NOT_FOUND, fail, say

app = typer.Typer(
    name="linkmesh",
    help="An event-driven URL shortener, and the whole of it on one machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(up.down)
app.command()(status.status)
app.command()(status.logs)
app.command()(doctor.doctor)
app.command()(fetch.fetch)
app.command()(faults.kill)
app.command()(faults.pause)
app.command()(faults.resume)
app.command()(faults.start)
app.command()(plan.plan)
app.command()(rebuild.rebuild)
app.command()(lag.lag)
app.add_typer(dlq.app, name="dlq")
app.add_typer(link.app, name="link")
app.command()(stats.stats)
app.command()(top.top)
app.command()(reconcile.reconcile)
app.command()(trace.trace)
app.add_typer(key.app, name="key")
app.add_typer(webhook.app, name="webhook")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run the command line and end the process."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the one place that decides what a person sees of an error
        _explain(error)


def _explain(error: Exception) -> None:
    """End with the line and the code that fit an error; what we do not know is shown in full."""
    from linkmesh.client import Problem, Unreachable
    from linkmesh.local.control import NotRunning
    from linkmesh.local.errors import LocalError

    match error:
        case Problem():
            more = [f"{field}: {said}" for field, said in error.errors.items()]
            more += [f"trace {error.trace_id}"] if error.trace_id else []
            named = f"{error} ({error.code})" if error.code else str(error)
            fail(named, "\n          ".join(more), NOT_FOUND if error.status == 404 else FAILED)
        case Unreachable():
            fail(str(error), "is it running? linkmesh status", NOT_FOUND)
        case LocalError():
            fail(str(error), error.hint, NOT_FOUND if isinstance(error, NotRunning) else FAILED)
    raise error


def _version(wanted: bool) -> None:
    if wanted:
        say(importlib.metadata.version("linkmesh"))
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """An event-driven URL shortener, and the whole of it on one machine."""


if __name__ == "__main__":
    main()
