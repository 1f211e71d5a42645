"""What the processes leave for each other in Redis: names, values, and the calls of the Function library `linkmesh_v3`.

Pure: it builds the arguments of a call and reads its reply; adapters do the I/O. What each Function does and why stands
in linkmesh_v3.lua and in docs/PROTOCOLS.md (R, O). All keys of one link carry the same slot tag, so that one Function
call may touch them all.

Calls, `FCALL <name> <number of keys> <keys> <arguments>`; every reply is an array whose first element is a word:

| function            | keys                     | reply                                                              |
|---------------------|--------------------------|--------------------------------------------------------------------|
| linkmesh_v3_mutate  | url, lease, seen, outbox, | APPLIED; REPEATED value; LATE; CONFLICT; LEASE_NEEDED; FULL what; |
|                     | restored                 | OTHER_RUN                                                          |
| linkmesh_v3_lease   | url, lease, restored     | PRESENT value; GRANTED; HELD; OTHER_RUN                            |
| linkmesh_v3_release | lease                    | RELEASED; NOTHING                                                  |
| linkmesh_v3_fill    | url, lease               | STORED; PRESENT value; ABSENT (not stored)                         |
| linkmesh_v3_persisted | url, lease             | EXPIRING; REPAIRED; NEWER; OTHER; ABSENT                           |
| linkmesh_v3_restore | url, lease, restored     | STORED; NOTHING; OVER                                              |
| linkmesh_v3_standing | restored                | RESTORED run; CHANGED run                                          |
| linkmesh_v3_restored | restored, unsettled     | RESTORED; OVER                                                     |
| linkmesh_v3_note    | restored, noted          | NOTED; OVER                                                        |
| linkmesh_v3_settled | unsettled                | SETTLED; NOTHING                                                   |
| linkmesh_v3_lead    | relay:leader             | LEADING; FOLLOWING                                                 |
| linkmesh_v3_resign  | relay:leader             | RESIGNED; NOTHING                                                  |
| linkmesh_v3_trim    | outbox                   | TRIMMED; OTHER_RUN                                                 |
| linkmesh_v3_set_aside | outbox-aside           | KEPT                                                               |
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from struct import Struct
from typing import NamedTuple, NewType

from google.protobuf.message import DecodeError

from contracts.link import EventId, Link, LinkEvent, LinkKey, UserId, bucket_of
from contracts.link_codec import STATES, UndecodableError, encode_link, link_from_message
from contracts.outbox_entries import encode_outbox_entry
from contracts.wire import part, tag_of
from shortener.link.v1.link_pb2 import Link as LinkMessage
from shortener.store.v1.cache_entry_pb2 import CacheEntry

LIBRARY = "linkmesh_v3"
LIBRARY_FILE = "linkmesh_v3.lua"  # in this package
BUCKETS = 16  # slot tags; the outbox has a stream for each
OUTBOX_FIELD = b"e"

LEASE_MS = 3_000
RESERVATION_LEASE_MS = 30_000  # K2: long enough for a conditional put in DynamoDB with its retries
CACHE_TTL_S = 86_400  # ± 20 % for live links, exactly this for tombstones; shorter under memory pressure [R6]
SEEN_MS = 86_400_000  # how long the result of an event that a client may repeat is kept [R1]

IDS_HIGH = "ids:high"  # L5: the known mark of issued ids
RELAY_LEADER = "relay:leader"
OUTBOX_OF_MEMORY = 0.40  # share of maxmemory that the outbox may take when no budget is set [O3]; in the library, too
URL_PREFIX = "url:"  # what gateways track

LeaseToken = NewType("LeaseToken", bytes)  # random per call of lease


# ---------------------------------------------------------------- names


def url_key(key: LinkKey) -> str:
    """Where the value of a link is."""
    return f"url:{_tag(key)}:{key}"


def lease_key(key: LinkKey) -> str:
    """Where the lease of an absent link is."""
    return f"lease:{_tag(key)}:{key}"


def seen_key(key: LinkKey, event_id: EventId) -> str:
    """Where the result of an event that a client may repeat is remembered."""
    return f"seen:{_tag(key)}:{event_id}"


def outbox_key(bucket: int) -> str:
    """The stream of events that are not in Kafka yet, one for each bucket in 0 … 15."""
    return f"outbox:{{{bucket:02d}}}"


def outbox_aside_key(bucket: int) -> str:
    """The stream of outbox entries that cannot be read, set aside for a person."""
    return f"outbox-aside:{{{bucket:02d}}}"


def restored_key(bucket: int) -> str:
    """The run of Redis into which everything of this bucket was put back [R8]. linkmesh_v2 calls it otherwise:
    it names runs in another way, and while its last processes end, each would take the other's for another run.
    """
    return f"restored-run:{{{bucket:02d}}}"


def intent_key(user_id: UserId, idempotency_key: str) -> str:
    """Where the intent of an idempotent mutation is [I1]."""
    return f"idem:{user_id}:{idempotency_key}"


def beat_key(gateway_id: str) -> str:
    """The key by which a gateway hears its own invalidations [L2]; under the prefix that it tracks."""
    return f"url:hb:{gateway_id}"


def _tag(key: LinkKey) -> str:
    return f"{{{bucket_of(key):02d}}}"


# ---------------------------------------------------------------- values

# format, state, version, event_id. The Functions read these 26 bytes of *every* format by struct (`>BBI8c16`), so their
# layout is fixed for ever; the format tells what follows them.
_HEADER = Struct(">BBQ16s")
_FORMAT = 1
_ENTRY_LINK = tag_of(CacheEntry, "link")
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def encode_entry(link: Link, encoded: bytes | None = None) -> bytes:
    """The value of url:{bb}:<key>: the fixed header and a CacheEntry. `encoded`: the link's message, if it is already.

    Raises:
        ValueError: the event_id is not a UUID in canonical text.
    """
    header = _HEADER.pack(_FORMAT, STATES[link.state], link.version, event_id_bytes(link.event_id))
    return header + part(_ENTRY_LINK, encode_link(link) if encoded is None else encoded)


def decode_entry(value: bytes) -> Link:
    """The link of a value; a tombstone is a link in state DELETED.

    Raises:
        UndecodableError: not such a value, or one of a format this version does not know. A reader treats it as a miss.
    """
    message = entry_message(value)
    try:
        return link_from_message(message)
    except ValueError as exc:
        raise UndecodableError("the cache entry has no link") from exc


def entry_message(value: bytes) -> LinkMessage:
    """The same as a protobuf, for who needs a field or two of it, at a tenth of the price.

    Raises:
        UndecodableError: as decode_entry; but states and times that cannot be are not looked at.
    """
    if len(value) < _HEADER.size or value[0] != _FORMAT:
        raise UndecodableError("not a cache entry of a known format")
    _, state, version, event_id = _HEADER.unpack_from(value)
    try:
        message = CacheEntry.FromString(value[_HEADER.size :]).link
    except DecodeError as exc:
        raise UndecodableError("the cache entry is not a protobuf of its type") from exc
    if (state, version, event_id.hex()) != (message.state, message.version, message.event_id.replace("-", "")):
        raise UndecodableError("the header of the cache entry is of another link")
    if not message.short_code or version < 1:
        raise UndecodableError("the cache entry has no link")
    return message


def event_id_bytes(event_id: EventId) -> bytes:
    """The 16 bytes of an event id.

    Raises:
        ValueError: it is not a UUID in canonical text.
    """
    if not _CANONICAL_UUID.fullmatch(event_id):
        raise ValueError("the event_id is not in canonical form")
    return bytes.fromhex(event_id.replace("-", ""))


# ---------------------------------------------------------------- calls


class FunctionCall(NamedTuple):
    """A call of the library: `client.fcall(*call.arguments)`, also on a pipeline."""

    name: str
    keys: tuple[str, ...]
    values: tuple[bytes | str | int, ...]

    @property
    def arguments(self) -> tuple[bytes | str | int, ...]:
        """Everything behind FCALL."""
        return (self.name, len(self.keys), *self.keys, *self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A decided change of a link: the event with the full link that results, and what it was decided on [R1]."""

    event: LinkEvent
    base_version: int  # the version that was read; 0: a create
    generated: bool = False  # a create under a generated code: unique by construction, needs no lease
    token: LeaseToken | None = None  # of the lease under which the base was read; None: the value was present
    not_after: datetime | None = None  # Redis time after which it must not be applied any more; None: never re-sent
    remember: bool = False  # keep the result for 24 h: only when the client sent an idempotency key
    traceparent: str | None = None
    encoded: bytes | None = field(default=None, compare=False)  # the message of the event's link, if it is already


def mutate_call(mutation: Mutation, *, outbox_bytes_max: int, run_id: str | None = None) -> FunctionCall:
    """R1. `outbox_bytes_max`: budget of all outbox streams together [O3]; 0: OUTBOX_OF_MEMORY of maxmemory.
    `run_id`: the only run of Redis that may do it [R8]; None: whichever."""
    event = mutation.event
    key = event.link.key
    encoded = encode_link(event.link) if mutation.encoded is None else mutation.encoded
    bucket = bucket_of(key)
    tagged = f"{{{bucket:02d}}}:"  # the names below, with one look at the key
    keys = (
        f"url:{tagged}{key}",
        f"lease:{tagged}{key}",
        f"seen:{tagged}{event.event_id}",
        outbox_key(bucket),
        restored_key(bucket),
    )
    not_after_ms = int(mutation.not_after.timestamp() * 1000) if mutation.not_after else 0
    values = (
        mutation.base_version,
        event_id_bytes(event.event_id),
        mutation.token or b"",
        int(mutation.generated),
        not_after_ms,
        int(mutation.remember),
        outbox_bytes_max // BUCKETS,
        encode_entry(event.link, encoded),
        encode_outbox_entry(event, mutation.traceparent, encoded),
        run_id or "",
    )
    return FunctionCall("linkmesh_v3_mutate", keys, values)


def lease_call(key: LinkKey, token: LeaseToken, *, lease_ms: int = LEASE_MS, run_id: str | None = None) -> FunctionCall:
    """R2. `run_id`: as for mutate_call."""
    keys = (url_key(key), lease_key(key), restored_key(bucket_of(key)))
    return FunctionCall("linkmesh_v3_lease", keys, (token, lease_ms, run_id or ""))


def release_call(key: LinkKey, token: LeaseToken) -> FunctionCall:
    """Gives a lease back before its time; as if it had expired."""
    return FunctionCall("linkmesh_v3_release", (lease_key(key),), (token,))


def fill_call(token: LeaseToken, link: Link, *, ttl_s: int = CACHE_TTL_S, run_id: str | None = None) -> FunctionCall:
    """R3. `run_id`: as for mutate_call; another run stores nothing."""
    values = (token, encode_entry(link), ttl_s * 1000, run_id or "")
    return FunctionCall("linkmesh_v3_fill", value_keys(link), values)


def persisted_call(link: Link, *, ttl_s: int = CACHE_TTL_S) -> FunctionCall:
    """R4: the event row and the projection of this version are in the table. Safe to repeat.

    Redis answers "Function not found" until link_service has loaded the library: a dependency that is away.
    """
    return FunctionCall("linkmesh_v3_persisted", value_keys(link), (encode_entry(link), ttl_s * 1000))


def trim_call(bucket: int, before: str, run_id: str) -> FunctionCall:
    """O1: removes what stands before this position, unless Redis is at another run (empty: whichever)."""
    return FunctionCall("linkmesh_v3_trim", (outbox_key(bucket),), (before, run_id))


def set_aside_call(bucket: int, data: bytes, at: str) -> FunctionCall:
    """O1: keeps an outbox entry that cannot be read, from position `at`, for a person."""
    return FunctionCall("linkmesh_v3_set_aside", (outbox_aside_key(bucket),), (data, at))


def lead_call(candidate: str, *, lease_ms: int, key: str = RELAY_LEADER) -> FunctionCall:
    """O1: takes or renews the relay's leader lease, or another one."""
    return FunctionCall("linkmesh_v3_lead", (key,), (candidate, lease_ms))


def resign_call(candidate: str) -> FunctionCall:
    """Gives the leader lease back, if it is this candidate's."""
    return FunctionCall("linkmesh_v3_resign", (RELAY_LEADER,), (candidate,))


def reply_of(reply: object) -> tuple[str, bytes]:
    """The word of a reply and the value behind it (empty where there is none).

    Raises:
        UndecodableError: not a reply of the library.
    """
    if isinstance(reply, Sequence) and not isinstance(reply, str | bytes) and 1 <= len(reply) <= 2:
        word, value = reply[0], reply[1] if len(reply) == 2 else b""
        if isinstance(word, bytes) and isinstance(value, bytes):
            return word.decode("ascii", "replace"), value
    raise UndecodableError("not a reply of the function library")


def value_keys(link: Link) -> tuple[str, ...]:
    """What the calls about a stored value touch."""
    return (url_key(link.key), lease_key(link.key))
