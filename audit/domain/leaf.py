"""What a leaf says of a record: where it stands, what it is about, and a commitment to its bytes [B3].

The commitment is HMAC-SHA256(salt, value), and the salt follows from a key of the account: with the key gone, nobody
can tell any more what was committed to, and the tree stays as it is.
"""

import hmac
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha256

from contracts.link import EventId, LinkEvent, LinkKey, UserId

FORMAT = 1
ACCOUNT_KEY_BYTES = 32
_TEXT_CHARS_MAX = 200  # ids and types come from headers that anyone may have written; a leaf has to fit its bundle
_INDEXED_BYTES_MAX = 512  # a table's partition key may have 2048
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf in plain values; `commitment` is empty until it is made."""

    topic: str
    partition: int
    offset: int
    recorded_at: datetime  # the broker's clock
    event_id: str
    event_type: str
    commitment: bytes = b""


class KeyKind(Enum):
    """Whose key salts a leaf."""

    ACCOUNT = "account"
    LOG = "log"  # of records that name no account, such as those that cannot be decoded


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """An account (by user_id) or a log (by its name)."""

    kind: KeyKind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """By what an entry is found: the only place that ties a leaf to an account and a link."""

    user_id: UserId
    key: LinkKey
    short_code: str
    version: int
    at: datetime  # when the event was decided
    event_id: EventId
    event_type: str
    partition: int
    offset: int
    leaf_index: int


def leaf_of(
    *, topic: str, partition: int, offset: int, timestamp_ms: int, event_id: str | None, event_type: str | None
) -> Leaf:
    """The leaf of a record, without its commitment. Texts beyond 200 characters are cut."""
    return Leaf(
        topic=topic,
        partition=partition,
        offset=offset,
        recorded_at=_EPOCH + timedelta(milliseconds=timestamp_ms),
        event_id=(event_id or "")[:_TEXT_CHARS_MAX],
        event_type=(event_type or "")[:_TEXT_CHARS_MAX],
    )


def commit(leaf: Leaf, value: bytes, account_key: bytes) -> Leaf:
    """The leaf with its commitment to the record's value; the same for the same key, place and value."""
    place = f"{leaf.topic}|{leaf.partition}|{leaf.offset}".encode()
    salt = hmac.digest(account_key, place, sha256)
    return replace(leaf, commitment=hmac.digest(salt, value, sha256))


def is_indexable(event: LinkEvent) -> bool:
    """Whether account and link fit a table's key; of our own events all do."""
    return all(len(name.encode()) <= _INDEXED_BYTES_MAX for name in (event.user_id, event.link.key, event.event_id))


def is_of_same_record(leaf: Leaf, stored: Leaf) -> bool:
    """Whether a stored leaf is of the record that `leaf` was made of (place, broker time, event), commitments aside."""
    return replace(leaf, commitment=b"") == replace(stored, commitment=b"")
