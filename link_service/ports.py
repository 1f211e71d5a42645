"""What link_service needs of the world: each port with its delivery and its errors.

Every call ends within a deadline of its adapter's, and raises Unavailable when the other side is away, hung or
throttled; what a call that changes something has done is then not known, unless the port says otherwise.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from chassis.auth import Plan
from chassis.errors import Unavailable
from contracts.cache import LEASE_MS, LeaseToken, Mutation
from contracts.link import EventId, Link, LinkEvent, LinkKey, UserId
from contracts.link_codec import UndecodableError
from contracts.link_rows import Reservation
from link_service.domain.ids import IdBlock
from link_service.domain.intents import Intent

READS_MAX = 100  # links of one read_many


class LinkTable(Protocol):
    """Table `links`, as its reader and as the keeper of reservations."""

    async def read(self, key: LinkKey) -> Link | Reservation | None:
        """The projection, by a consistent read [R5]. Safe to repeat."""
        ...

    def read_many(
        self, keys: Sequence[LinkKey]
    ) -> AsyncIterator[Mapping[LinkKey, Link | Reservation | UndecodableError | None]]:
        """As `read`, for at most READS_MAX different links, in parts as the database answers: each link is in one part,
        with the error where its row cannot be read. What the database leaves undone is asked for again and is never
        taken for absent; Unavailable ends the parts, and says nothing of the links that were in none. Safe to repeat.
        """
        ...

    async def has_event(self, key: LinkKey, version: int) -> bool:
        """Whether the event row of a version exists, by a consistent read. Safe to repeat."""
        ...

    async def read_event(self, key: LinkKey, version: int) -> LinkEvent | None:
        """The event that made a version, by a consistent read; None: it is not in the table, perhaps not yet. Safe to
        repeat."""
        ...

    async def list_events(self, key: LinkKey, *, first: int, count: int) -> Sequence[LinkEvent]:
        """Events from version `first` on, in order, by a consistent read: at most `count`, and fewer where they are
        large (about 1 MB), but none only if there is none. Safe to repeat."""
        ...

    async def newest_event(self, key: LinkKey) -> LinkEvent | None:
        """The event of the highest version, by a consistent read; None: there is none. Safe to repeat."""
        ...

    async def project(self, link: Link) -> bool:
        """Puts the projection, unless it has a newer version (False then) [W2]. Safe to repeat."""
        ...

    async def reserve(self, wanted: Reservation, *, over: Reservation | None) -> bool:
        """Puts a reservation, on condition that there is nothing, or (`over`) exactly that older reservation [K2].

        False: the condition does not hold. Repeating one that was stored answers False.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Link keys, each in one page only; `cursor` is where the next page begins, empty: this was the last."""

    keys: tuple[LinkKey, ...]
    cursor: str


class BadCursorError(ValueError):
    """A cursor that no page ended with."""


class LinkKeys(Protocol):
    """All links of table `links`, reserved codes among them, in an order of its own."""

    async def page(self, cursor: str, *, rows: int) -> KeyPage:
        """The links of the next `rows` rows, read consistently; perhaps none, although there are more pages. Links that
        are made meanwhile may be missing. Safe to repeat. A cursor is good for ever.

        Raises:
            BadCursorError: no page ended with this cursor.
        """
        ...


class IdCounter(Protocol):
    """The counter that blocks of ids are leased from."""

    async def lease(self, *, at_least: int) -> IdBlock | None:
        """The next block, nobody else's for ever; a lost answer only wastes ids.

        None, and nothing changed, when the counter stands below `at_least` (it was restored from a backup [K1]) or the
        code space is used up.
        """
        ...


class CacheServer(Protocol):
    """What the primary Redis knows beside the links."""

    async def ids_high(self) -> int:
        """The known mark: no leased id lies at or above it, as far as Redis was told; 0 when it was never told."""
        ...

    async def raise_ids_high(self, mark: int) -> None:
        """Raises the mark to at least `mark`. Safe to repeat."""
        ...

    async def run_id(self) -> str:
        """The id of this run of the primary: another one after a restart or a failover."""
        ...

    async def oldest_in_outbox(self, key: LinkKey) -> datetime | None:
        """When, by Redis' clock, the oldest event in this link's outbox stream entered it; None: it is empty."""
        ...


class EventLog(Protocol):
    """What Kafka knows of link events that are not in the table yet."""

    async def oldest_unwritten(self, key: LinkKey) -> datetime | None:
        """When, by the broker's clock, the first record arrived that the writer has not committed, in this link's
        partition; None: there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """An API key as it is kept; the key itself is not."""

    key_id: str
    key_hash: str
    user_id: UserId
    scopes: tuple[str, ...]
    prefix: str
    created_at: datetime


class Accounts(Protocol):
    """Table `accounts`: accounts and their keys."""

    async def open_account(self, user_id: UserId, plan: Plan, at: datetime) -> None:
        """Makes the account if it is new; one that exists keeps its plan. Safe to repeat."""
        ...

    async def add_key(self, key: StoredKey) -> None:
        """Stores a key; it opens the account once the call has returned. Safe to repeat."""
        ...

    async def find_key(self, key_hash: str) -> tuple[StoredKey, Plan] | None:
        """The key of a hash and the plan of its account, by consistent reads. Safe to repeat."""
        ...


class Intents(Protocol):
    """What idempotency keys stand for, in Redis, for 24 h [I1]. A key is a client's, under its account.

    Who is given an intent of its own request by `begin` or `swap` carries it, until it gives it up. Redis counts the
    carriers; a carrier that dies, or whose answer was lost, stays counted, since it may yet apply the event [I3].

    Raises (every call):
        Unavailable: Redis is away or hangs; reason `unavailable`, since nothing of the mutation itself was done.
    """

    async def begin(self, user_id: UserId, idempotency_key: str, intent: Intent) -> Intent:
        """Stores the intent if there is none; the one that is stored then. Safe to repeat: one carrier too many."""
        ...

    async def swap(self, user_id: UserId, idempotency_key: str, *, old: Intent, new: Intent) -> Intent | None:
        """Replaces exactly `old` by `new`; the one that is stored then, None if it has expired."""
        ...

    async def find(self, user_id: UserId, idempotency_key: str) -> Intent | None:
        """The intent that is stored, without carrying it. Safe to repeat."""
        ...

    async def give_up(self, user_id: UserId, idempotency_key: str, intent: Intent) -> bool:
        """A carrier of exactly this intent has not applied its event and never will; called once by each. Removes the
        intent if that was the last carrier, and tells whether [I3]."""
        ...


# ---------------------------------------------------------------- links and outbox in Redis


@dataclass(frozen=True, slots=True)
class Done:
    """The event is applied and durable; `link` is its result. `repeated`: an earlier call had applied it."""

    link: Link
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Late:
    """Past `not_after`: this call did nothing, an earlier one may have. No verdict."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing done: the stored version is not the base. The base is void: read and decide again."""


@dataclass(frozen=True, slots=True)
class LeaseNeeded:
    """Nothing done: the value is absent and the token is not the current lease's. Lease, read and decide again."""


@dataclass(frozen=True, slots=True)
class Full:
    """Nothing done: Redis has no room for this until the outbox drains. `what`: memory or outbox."""

    what: str


class Restoring(Unavailable):
    """Redis was restarted or replaced, and what it may have forgotten is being put back: nothing was done, and nothing
    is known of the link [R8]."""

    def __init__(self) -> None:
        super().__init__("unavailable", "Redis is being restored.", retry_after_s=1)


Verdict = Done | Late | Conflict | LeaseNeeded | Full


@dataclass(frozen=True, slots=True)
class Present:
    """The value is there: this link, perhaps a tombstone."""

    link: Link


@dataclass(frozen=True, slots=True)
class Leased:
    """The value is absent, and the lease is the caller's: what it reads consistently *from now on* it may fill in."""

    token: LeaseToken


@dataclass(frozen=True, slots=True)
class Held:
    """The value is absent, and another holds the lease: read consistently and answer, but fill in nothing."""


class LinkCache(Protocol):
    """The links in Redis [R1 to R5]. No call is re-sent by itself. Absent here means: a consistent read of META that
    begins now holds every acknowledged version [R5]; an error means nothing at all.

    Raises (every call):
        Unavailable: Redis is away, hangs, has no room, lacks the library, or holds a value that cannot be read. Reads
            (get, lease, release, fill, seen, now) take at most 50 ms, `mutate` and `remember` 500 ms, and after a
            timeout nobody waits again for 1 s [R7]. Of `mutate`, reason `outcome_unknown`: it was sent, and may have
            been or may yet be applied.
        Restoring: `mutate` and `lease`, while Redis may have forgotten; nothing was done.
    """

    async def get(self, key: LinkKey) -> Link | None:
        """The link, perhaps a tombstone; None: absent or unreadable (`lease` tells which)."""
        ...

    async def mutate(self, mutation: Mutation) -> Verdict:
        """Value and event in one step [R1]; when this says Done, both survive a kill of Redis."""
        ...

    async def mutate_all(self, mutations: Sequence[Mutation]) -> Sequence[Verdict | Unavailable]:
        """As `mutate`, for mutations of different links, in about the time of one. Each has its own verdict, or as a
        value what `mutate` would have raised of it; nothing else is raised."""
        ...

    async def lease(self, key: LinkKey, *, lease_ms: int = LEASE_MS) -> Present | Leased | Held:
        """The value, or the right to fill it in [R2]. The token is new with each call."""
        ...

    async def release(self, key: LinkKey, token: LeaseToken) -> None:
        """Gives back a lease that will not be used (nothing found, or given up), so that nobody waits for its end."""
        ...

    async def fill(self, token: LeaseToken, link: Link) -> Link:
        """Stores a link read under the lease if the value is still absent [R3]; what is stored *now*: answer with that.
        The argument itself when nothing is stored (lease lost, or Redis too full for caching)."""
        ...

    async def persisted(self, link: Link) -> None:
        """The tables hold this version: its entry gets an expiry, an older one is replaced [R4]. Safe to repeat."""
        ...

    async def seen(self, key: LinkKey, event_id: EventId) -> Link | None:
        """The remembered result of an event, to be asked before any precondition failure is answered [I2]."""
        ...

    async def remember(self, key: LinkKey, event_id: EventId, link: Link, not_after: datetime) -> Link | Late:
        """Keeps the result of an event that was not needed for as long as others are [I1]; the one that is kept then,
        which is an earlier one if there is. `mutate` with this event repeats it from now on. Safe to repeat.

        Late: past `not_after` nothing is kept any more, since another event may stand for the request by then."""
        ...

    async def now(self) -> datetime:
        """Redis' clock, the one that `not_after` is compared with; aware UTC."""
        ...


Position = NewType("Position", tuple[int, int])  # ms of Redis' clock when the entry was added, sequence number


@dataclass(frozen=True, slots=True)
class QueuedEntry:
    """An entry of one of the outbox streams, as it stands there; `position` orders the entries of a bucket."""

    bucket: int
    position: Position
    data: bytes


class Outbox(Protocol):
    """The events that are not known to be in Kafka [O1]. Reading takes nothing away.

    Raises (every call):
        Unavailable: Redis is away or hangs.
    """

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the one leader lease; whether it is the candidate's now."""
        ...

    async def resign(self, candidate: str) -> None:
        """Gives the leader lease back if it is the candidate's."""
        ...

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        """The oldest entries of each bucket, in order per bucket, bounded in number; waits up to wait_s (< 1 s) for a
        first one, and may then be empty."""
        ...

    async def trim(self, through: Mapping[int, Position]) -> None:
        """Removes, per bucket, every entry up to and including this position; nothing behind it."""
        ...

    async def set_aside(self, entry: QueuedEntry) -> None:
        """Keeps an entry that cannot be read in a stream for a person, where it survives `trim`."""
        ...

    async def depth(self) -> "OutboxDepth":
        """How much is waiting."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """What waits in all buckets together."""

    entries: int
    size_bytes: int  # Redis' own estimate of its memory
    oldest_age_s: float  # of the oldest entry, by Redis' clock; 0 when empty


class CacheFitness(Protocol):
    """Whether Redis may be trusted with acknowledgements [R6].

    Raises:
        Unavailable: Redis is away or hangs.
    """

    async def problem(self) -> str | None:
        """Why it may not, as a sentence; None: it may. Loads the Function library where it is missing."""
        ...

    async def memory(self) -> "MemoryUse":
        """How full it is."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory in use, as Redis itself counts it, and the most it may take; 0: there is no such limit."""

    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        """0 … 1 and above; 0 when there is no limit."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes else 0.0
