"""The links in Redis, what calls on them answer, and what idempotency keys stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chassis.errors import Unavailable
from contracts.cache import LEASE_MS, LeaseToken, Mutation
from contracts.link import EventId, Link, LinkKey, UserId
from link_service.domain.intents import Intent


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
            (get, lease, release, fill, seen, now) wait 50 ms for it, `mutate` and `remember` 500 ms, not counting time
            in which this process itself stood still, and after a timeout nobody waits again for 1 s [R7]. Of `mutate`,
            reason `outcome_unknown`: it was sent, and may have been or may yet be applied.
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
