"""`linkmesh link import FILE`: many links at once, as often as it takes."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linkmesh.cli.progress import counted
from linkmesh.cli.terminal import FAILED, STATE_FOLDER, USAGE, Json, State, fail, open_client, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkmesh.local.importing import Imported, Refusal

Errors = Annotated[
    Path | None, typer.Option(help="Where lines that made no link are told, as JSON lines; else FILE.errors.jsonl.")
]
Progress = Annotated[Path | None, typer.Option(help="The journal by which a repeat goes on; else FILE.progress.jsonl.")]


def import_links(
    file: Annotated[
        Path, typer.Argument(help="CSV with the columns' names first, if it ends in .csv; else JSON lines.")
    ],
    errors: Errors = None,
    progress: Progress = None,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a link of each line. Repeat it after whatever cut it off, or with lines that were mended: no line makes two.

    Columns, or members, are those of POST /api/links; in CSV tags stand in one cell, with ; between them.
    """
    from linkmesh.local.import_lines import ImportProblem, lines_of
    from linkmesh.local.importing import Importer, Journal

    errors = errors or file.with_name(f"{file.name}.errors.jsonl")
    if errors.absolute() == file.absolute():
        fail(f"{errors} is what is imported", "name another file for the errors", USAGE)
    try:
        total = sum(1 for _ in lines_of(file))
    except ImportProblem as problem:
        fail(str(problem), code=USAGE)
    try:
        with (
            open_client(state) as client,
            Journal(progress or file.with_name(f"{file.name}.progress.jsonl")) as journal,
            _told(errors) as refuse,
            counted("importing", total) as advance,
        ):
            done = Importer(
                create=lambda links, key: client.create_links(links, idempotency_key=key),
                journal=journal,
                refuse=refuse,
                advance=advance,
                now=lambda: datetime.now(UTC),
                sleep=time.sleep,
            ).run(lines_of(file))
    except ImportProblem as problem:
        fail(str(problem), "repeat the command to go on; no line makes two links", FAILED)
    result = {**asdict(done), "errors_file": str(errors) if done.refused else None}
    show(result, lambda: _sentence(done, errors), as_json=as_json)
    if done.refused:
        sys.exit(FAILED)


@contextmanager
def _told(path: Path) -> "Iterator[Callable[[Refusal], None]]":
    """Yields what writes a refusal into the file, which is there only if there is one."""
    path.unlink(missing_ok=True)

    def tell(refusal: "Refusal") -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(refusal)) + "\n")

    yield tell


def _sentence(done: "Imported", errors: Path) -> str:
    parts = [f"{done.made} made"]
    if done.skipped:
        parts.append(f"{done.skipped} made before")
    if done.refused:
        parts.append(f"{done.refused} refused, see {errors}")
    return ", ".join(parts)
