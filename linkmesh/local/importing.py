"""Making many links from a file, so that a call that was cut off, however, is repeated and makes no link twice.

What is about to be sent is written to a journal first, under an idempotency key of its own, and what came of it after:
the next call skips what was made, and sends what it has no answer of once more, under the same key.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from uuid import uuid4

from linkmesh.client import Json, Problem, Unreachable
from linkmesh.local.import_lines import LINE_BYTES_MAX, ImportProblem, Line

_BATCH_MAX, _BATCH_BYTES_MAX = 100, LINE_BYTES_MAX  # the gateway takes 100, and 512 KiB
_TRIES_MAX = 6
_WAIT_S, _WAIT_MAX_S = 0.5, 10.0
_KEY_HOLDS = timedelta(hours=23)  # an idempotency key is honoured for 24 h
_TOO_MANY, _SERVER_ERROR = 429, 500

CreateLinks = Callable[[Sequence[Json], str], Sequence[Json]]
"""Makes links under an idempotency key: `{link}` or `{problem}` for each. Raises Problem, Unreachable."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that made no link, and why."""

    number: int
    link: Json | None
    code: str
    detail: str
    errors: object = ()


@dataclass(slots=True)
class Imported:
    """What became of the lines."""

    made: int = 0
    skipped: int = 0  # made by an earlier call
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that travel together, under one idempotency key."""

    key: str
    at: datetime
    lines: Sequence[Line]


class Journal:
    """What was sent and what came of it, a JSON object a line; each is on the disk before the next step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: dict[str, str] = {}  # line → short code
        self.unanswered: list[Batch] = []
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        """Reads it, and opens it to go on.

        Raises:
            ImportProblem: it is no journal.
        """
        try:
            self._file = self.path.open("a", encoding="utf-8")
            self._read(self._file)
        except BlockingIOError as error:
            self.close()
            raise ImportProblem(f"another import writes to {self.path}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise ImportProblem(f"{self.path} is no journal of an import: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write to it."""
        if self._file is not None:
            self._file.close()

    def _read(self, file: TextIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end = 0
        for raw in self.path.read_bytes().splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                break  # cut off while it was written: nothing was sent after it
            self._note(json.loads(raw))
            end += len(raw)
        file.truncate(end)

    def sending(self, batch: Batch) -> None:
        """This will be sent."""
        lines = [{"number": line.number, "name": line.name, "link": line.link} for line in batch.lines]
        self._write({"sending": batch.key, "at": batch.at.isoformat(), "lines": lines})

    def answered(self, batch: Batch, made: Mapping[str, str]) -> None:
        """These lines of it made these links, the others none."""
        self._write({"answered": batch.key, "made": dict(made)})

    def _write(self, entry: Json) -> None:
        assert self._file is not None, "used inside its block"
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(entry)

    def _note(self, entry: Mapping[str, object]) -> None:
        match entry:
            case {"sending": str(key), "at": str(at), "lines": list(lines)}:
                known = [Line(item["number"], item["name"], item["link"]) for item in lines]
                self.unanswered.append(Batch(key, datetime.fromisoformat(at), known))
            case {"answered": str(key), "made": dict(made)}:
                self.made |= made
                self.unanswered = [batch for batch in self.unanswered if batch.key != key]
            case _:
                raise ValueError("an entry of an unknown kind")


class Importer:
    """Sends the lines of a file that made no link yet. `refuse` is told what made none; `advance` how many are done."""

    def __init__(
        self,
        *,
        create: CreateLinks,
        journal: Journal,
        refuse: Callable[[Refusal], None],
        advance: Callable[[int], None],
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._create = create
        self._journal = journal
        self._refuse = refuse
        self._advance = advance
        self._now = now
        self._sleep = sleep
        self._done = Imported()

    def run(self, lines: Iterator[Line]) -> Imported:
        """What became of them.

        Raises:
            ImportProblem: the gateway does not answer for good, or a former call was cut off too long ago.
            Problem: the gateway refuses all of it, such as the API key.
        """
        tried = set[str]()
        for batch in list(self._journal.unanswered):
            if self._now() - batch.at > _KEY_HOLDS:
                raise ImportProblem(
                    f"the answer to the lines from {batch.lines[0].number} on got lost at {batch.at}, too long ago to"
                    f" ask again: see which of these links are there, then take the entry out of {self._journal.path}"
                )
            self._settle(batch)
            tried |= {line.name for line in batch.lines}
        for group in _grouped(self._wanted(lines, tried)):
            batch = Batch(f"import-{uuid4()}", self._now(), group)
            self._journal.sending(batch)
            self._settle(batch)
        return self._done

    def _wanted(self, lines: Iterator[Line], tried: set[str]) -> Iterator[Line]:
        for line in lines:
            if line.link is None:
                self._turn_away(Refusal(line.number, None, "malformed_request", line.wrong))
            elif line.name in self._journal.made and line.name not in tried:
                self._done.skipped += 1
                self._advance(1)
            elif line.name not in tried:
                yield line

    def _settle(self, batch: Batch) -> None:
        """Sends a batch until each of its lines has an answer for good."""
        links = [line.link or {} for line in batch.lines]
        for attempt in range(_TRIES_MAX):
            try:
                results = self._create(links, batch.key)
                passing = next((p for r in results if (p := _problem(r)) is not None and _passes(_status(p))), None)
                if passing is None:
                    self._conclude(batch, results)
                    return
                why = str(passing.get("detail") or passing.get("code"))
            except Unreachable as error:
                why = str(error)
            except Problem as error:
                if not _passes(error.status):
                    raise
                why = str(error)
            if attempt + 1 < _TRIES_MAX:
                self._sleep(min(_WAIT_MAX_S, _WAIT_S * 2**attempt))
        raise ImportProblem(f"stopped before line {batch.lines[0].number}: {why}")

    def _conclude(self, batch: Batch, results: Sequence[Json]) -> None:
        made: dict[str, str] = {}
        refusals: list[Refusal] = []
        for line, result in zip(batch.lines, results, strict=True):
            if (problem := _problem(result)) is not None:
                code, detail = str(problem.get("code", "")), str(problem.get("detail", ""))
                refusals.append(Refusal(line.number, line.link, code, detail, problem.get("errors")))
            else:
                link = result["link"]
                made[line.name] = str(link["short_code"]) if isinstance(link, dict) else ""
        self._journal.answered(batch, made)
        for refusal in refusals:
            self._turn_away(refusal)
        self._done.made += len(made)
        self._advance(len(made))

    def _turn_away(self, refusal: Refusal) -> None:
        self._refuse(refusal)
        self._done.refused += 1
        self._advance(1)


def _grouped(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Groups that one request may carry."""
    group: list[Line] = []
    size = 0
    for line in lines:
        length = len(json.dumps(line.link))
        if group and (len(group) == _BATCH_MAX or size + length > _BATCH_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(line)
        size += length
    if group:
        yield group


def _problem(result: Json) -> Mapping[str, object] | None:
    found = result.get("problem")
    return found if isinstance(found, dict) else None


def _status(problem: Mapping[str, object]) -> int:
    status = problem.get("status")
    return status if isinstance(status, int) else 0


def _passes(status: int) -> bool:
    """Whether the same request may be answered otherwise later."""
    return status >= _SERVER_ERROR or status == _TOO_MANY
