"""Pages of entries: where a page ended, and which rows are the same event again [O2].

A relay that was paused may send events a second time, so a log can hold v1 v2 v3 v1 v2. All are leaves; answers show an
event once. First occurrences stay in order, so within a link only a version that is not above all earlier ones can be a
repeat; within an account repeats stand side by side, since they share their time.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from audit.domain.leaf import IndexRow
from contracts.link import EventId, UserId

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 100
_FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row that was looked at, and what later rows are compared with."""

    subject: str  # what is listed; a token of another list is refused
    at: datetime
    partition: int
    offset: int
    version_max: int  # the highest version so far
    event_id: EventId  # of this row


class BadTokenError(ValueError):
    """A page token that this service did not make for this list."""


def page_size_of(wanted: int) -> int:
    """The size of a page: the default for 0, at most 100."""
    return min(wanted, PAGE_SIZE_MAX) if wanted > 0 else PAGE_SIZE_DEFAULT


def cursor_after(subject: str, rows: Sequence[IndexRow], before: Cursor | None) -> Cursor:
    """The cursor behind the last of these rows (at least one)."""
    last = rows[-1]
    highest = max([row.version for row in rows] + ([before.version_max] if before else []))
    return Cursor(subject, last.at, last.partition, last.offset, highest, last.event_id)


def own(rows: Sequence[IndexRow], user_id: UserId) -> list[IndexRow]:
    """The rows of that account."""
    return [row for row in rows if row.user_id == user_id]


def collapse(rows: Sequence[IndexRow], before: Cursor | None) -> list[IndexRow]:
    """The rows without those whose event is on this page already, or was the last of the page before."""
    seen = {before.event_id} if before else set()
    kept = []
    for row in rows:
        if row.event_id not in seen:
            kept.append(row)
        seen.add(row.event_id)
    return kept


def may_repeat(row: IndexRow, before: Cursor | None) -> bool:
    """Whether the event may have stood on an earlier page of its link; if not, it certainly did not."""
    return before is not None and row.version <= before.version_max


def encode_token(cursor: Cursor) -> str:
    """A cursor as an opaque text."""
    parts = [
        _FORMAT, cursor.subject, cursor.at.isoformat(), str(cursor.partition), str(cursor.offset),
        str(cursor.version_max), cursor.event_id,
    ]  # fmt: skip
    return urlsafe_b64encode("\n".join(parts).encode()).decode().rstrip("=")


def decode_token(token: str, subject: str) -> Cursor | None:
    """The cursor of a token; None for an empty one.

    Raises:
        BadTokenError: malformed, or of another list.
    """
    if not token:
        return None
    try:
        text = urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        format_, of, at, partition, offset, version, event_id = text.split("\n")
        cursor = Cursor(of, datetime.fromisoformat(at), int(partition), int(offset), int(version), EventId(event_id))
    except (binascii.Error, UnicodeError, ValueError) as exc:
        raise BadTokenError("the page token is malformed") from exc
    if format_ != _FORMAT or of != subject or cursor.at.tzinfo is None or cursor.partition < 0 or cursor.offset < 0:
        raise BadTokenError("the page token belongs to another list")
    return cursor
