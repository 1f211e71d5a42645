"""The lines of a file that links are made of: CSV, or a JSON object a line."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from linkmesh.client import Json

LINE_BYTES_MAX = 400_000  # of a link in JSON: the gateway takes 512 KiB at once
FIELDS = ("long_url", "custom_code", "title", "tags", "expires_at", "starts_at", "redirect_status")
_TAGS_BETWEEN = ";"


class ImportProblem(Exception):
    """Why the import cannot begin or go on; what was done is in the journal."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file. `name` tells it from all others, wherever it stands: by its content, and which of several
    alike it is. `link` is what `POST /api/links` takes, or None where `wrong` says why there is nothing to send."""

    number: int
    name: str
    link: Json | None
    wrong: str = ""


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file: CSV with a head of FIELDS if its name says so, else a JSON object a line.

    Raises:
        ImportProblem: the file cannot be read, or is no CSV of links.
    """
    alike: Counter[str] = Counter()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, found, not_found in _rows(file) if path.suffix.lower() == ".csv" else _objects(file):
                wrong = not_found if found is None else _why_not_sent(found)
                link = None if wrong else found
                said = json.dumps(link, sort_keys=True) if link is not None else wrong
                alike[said] += 1
                name = hashlib.sha256(f"{alike[said]} {said}".encode()).hexdigest()[:32]
                yield Line(number, name, link, wrong)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImportProblem(f"{path} cannot be read: {error}") from error


def _objects(file: TextIO) -> Iterator[tuple[int, Json | None, str]]:
    for number, text in enumerate(file, 1):
        if text.strip():
            try:
                link = json.loads(text)
            except (ValueError, RecursionError):
                link = None
            yield (number, link, "") if isinstance(link, dict) else (number, None, f"not a JSON object: {text.strip()}")


def _rows(file: TextIO) -> Iterator[tuple[int, Json | None, str]]:
    rows = csv.DictReader(file)
    if unknown := set(rows.fieldnames or ()) - set(FIELDS):
        raise ImportProblem(f"unknown columns {', '.join(sorted(unknown))}; there are: {', '.join(FIELDS)}")
    if "long_url" not in (rows.fieldnames or ()):
        raise ImportProblem(f"the first line must name the columns: long_url, and any of {', '.join(FIELDS[1:])}")
    for row in rows:
        if None in row:
            yield rows.line_num, None, f"more cells than columns: {row[None]}"
        else:
            yield rows.line_num, {name: _cell(name, text) for name, text in row.items() if text}, ""


def _why_not_sent(link: Json) -> str:
    """Why no request can carry this, whoever answers it; empty: one can. What is in the journal as being sent is sent
    again by every later call, so that such a line would end them all.
    """
    try:
        size = len(json.dumps(link, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError) as error:  # NaN, half a surrogate pair, brackets without end
        return f"no JSON that can be sent: {error}"
    return f"longer than {LINE_BYTES_MAX} bytes" if size > LINE_BYTES_MAX else ""


def _cell(name: str, text: str) -> object:
    if name == "tags":
        return [tag.strip() for tag in text.split(_TAGS_BETWEEN) if tag.strip()]
    return int(text) if name == "redirect_status" and text.isascii() and text.isdigit() else text
