"""Creates under codes that people choose: the one flow that asks the table, since two must never both be told "yours".

Lease, conditional put of a reservation, `mutate` under the lease; a lease that was lost starts it again [K2].
"""

from dataclasses import dataclass

from chassis.clock import Clock
from chassis.errors import AlreadyExists, Unavailable
from chassis.task_room import TaskRoom
from contracts.cache import RESERVATION_LEASE_MS, LeaseToken
from contracts.link import Link, LinkKey, link_key
from contracts.link_rows import Reservation
from contracts.reasons import Reason
from link_service.domain import links, reservations
from link_service.domain.intents import Attempt
from link_service.domain.links import Terms
from link_service.domain.reservations import Claim, Traces
from link_service.handlers.attempts import Attempts, Carried, Repeatable
from link_service.handlers.changing import mutation_of, who
from link_service.handlers.metrics import LINKS_CREATED, RACES_LOST
from link_service.handlers.reading import Base, Reader
from link_service.handlers.refusals import full
from link_service.ports import (
    CacheServer,
    Conflict,
    Done,
    EventLog,
    Full,
    Held,
    Late,
    Leased,
    LeaseNeeded,
    LinkCache,
    LinkTable,
    Present,
)

_TIMEOUT_S = 10.0  # of the whole flow: below the lease of 30 s, above every deadline of the ports inside
_HELD_POLL_S = 0.02
_HELD_POLLS_MAX = 50  # a second: the other create has failed or hangs, and its lease may last 30 s
_RACES_MAX = 8


@dataclass(frozen=True, slots=True)
class _Taken:
    """The code is somebody's; or it may be, and that cannot be ruled out now."""


@dataclass(frozen=True, slots=True)
class _Again:
    """The lease or the reservation was lost to another; what was read is void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomStores:
    """What the flow asks."""

    cache: LinkCache
    server: CacheServer
    table: LinkTable
    log: EventLog


class CustomCreation:
    """Creates under custom codes."""

    def __init__(self, stores: CustomStores, reader: Reader, attempts: Attempts, room: TaskRoom, clock: Clock) -> None:
        self._cache = stores.cache
        self._server = stores.server
        self._table = stores.table
        self._log = stores.log
        self._reader = reader
        self._attempts = attempts
        self._room = room
        self._clock = clock

    async def create(self, terms: Terms, request: Repeatable) -> Link:
        """The link that was made, or that an earlier call under the same idempotency key made.

        The flow goes on when the caller hangs up, so that this leaves no reservation behind.

        Raises:
            AlreadyExists: the code is taken, or may be.
            Unavailable: Redis or the table is away; or, reason outcome_unknown, it may have been made.
        """
        try:
            return await self._room.finish(self._create(terms, request), timeout_s=_TIMEOUT_S)
        except TimeoutError as exc:
            message = "The code could not be reserved in time."
            raise Unavailable(Reason.OUTCOME_UNKNOWN.code, message, retry_after_s=1) from exc

    async def _create(self, terms: Terms, request: Repeatable) -> Link:
        key = link_key(terms.wish.custom_code)
        async with self._attempts.carry(request, key) as carried:
            return await self._take(key, terms, request, carried)

    async def _take(self, key: LinkKey, terms: Terms, request: Repeatable, carried: Carried) -> Link:
        for _ in range(_RACES_MAX):
            attempt = carried.attempt
            answer: Link | _Taken | _Again | Attempt | Late
            match await self._lease(key):
                case Present(link):
                    answer = link if link.event_id == attempt.event_id else _Taken()
                case Held():
                    answer = await self._held(key, request)
                case Leased(token):
                    answer = await self._under_lease(token, terms, request, attempt)
            if isinstance(answer, _Taken):
                answer = await self._taken(attempt)
            match answer:
                case Link():
                    return answer
                case Attempt():
                    carried.attempt = answer
                case Late():
                    carried.attempt = await self._attempts.renew(request, attempt, key)
                case _Again():
                    RACES_LOST.inc()
        raise Unavailable("unavailable", "Too many want this code just now.", retry_after_s=1)

    async def _lease(self, key: LinkKey) -> Present | Leased | Held:
        for _ in range(_HELD_POLLS_MAX):
            answer = await self._cache.lease(key, lease_ms=RESERVATION_LEASE_MS)
            if not isinstance(answer, Held):
                return answer
            await self._clock.sleep(_HELD_POLL_S)
        return Held()

    async def _under_lease(
        self, token: LeaseToken, terms: Terms, request: Repeatable, attempt: Attempt
    ) -> Link | _Taken | _Again | Attempt:
        """Reserves and creates; the lease is spent or given back, whatever comes."""
        lease = Base(None, token)
        try:
            reserved = await self._reserve(attempt, request)
            if isinstance(reserved, Link):
                lease = Base(reserved, token)
                answer: Link | _Taken | _Again | Attempt = _Taken()
            elif reserved is not None:
                answer = reserved
            else:
                answer = await self._apply(lease, terms, request, attempt)
        except Unavailable:
            await self._reader.give_back(attempt.key, lease)  # else the next try would wait 30 s for its end
            raise
        if not isinstance(answer, Link):
            await self._reader.give_back(attempt.key, lease)
        return answer

    async def _apply(self, lease: Base, terms: Terms, request: Repeatable, attempt: Attempt) -> Link | _Again | Attempt:
        event = links.create(terms, attempt.key, who=who(request, attempt), now=self._clock.now())
        match await self._cache.mutate(mutation_of(event, attempt, lease)):
            case Done(link, repeated):
                if not repeated:
                    LINKS_CREATED.labels("custom").inc()
                return link
            case Late():
                return await self._attempts.renew(request, attempt, attempt.key)
            case Conflict() | LeaseNeeded():
                return _Again()
            case Full():
                raise full()

    async def _reserve(self, attempt: Attempt, request: Repeatable) -> Link | _Taken | _Again | None:
        """None: the reservation is ours. A link: the one that has the code."""
        wanted = Reservation(
            key=attempt.key,
            user_id=request.user_id,
            event_id=attempt.event_id,
            at=await self._cache.now(),  # takeovers compare it with what Redis and Kafka say of theirs
            redis_run_id=await self._server.run_id(),
        )
        if await self._table.reserve(wanted, over=None):
            return None
        found = await self._table.read(attempt.key)
        if found is None:
            return _Again()
        if isinstance(found, Link):
            return found
        older = _claim(found)
        if not reservations.is_plainly_theirs(older, _claim(wanted)):
            traces = await self._traces(attempt.key)
            if traces is None or not reservations.may_take_over(older, traces):
                return _Taken()
        return None if await self._table.reserve(wanted, over=found) else _Again()

    async def _traces(self, key: LinkKey) -> Traces | None:
        """What is left of an older create; None: Kafka cannot tell, so nothing is certain."""
        has_event_row = await self._table.has_event(key, 1)
        has_entry = await self._cache.get(key) is not None
        oldest_in_outbox = await self._server.oldest_in_outbox(key)
        try:
            oldest_unwritten = await self._log.oldest_unwritten(key)
        except Unavailable:
            return None
        return Traces(
            has_event_row=has_event_row,
            has_entry=has_entry,
            oldest_in_outbox=oldest_in_outbox,
            oldest_unwritten=oldest_unwritten,
        )

    async def _held(self, key: LinkKey, request: Repeatable) -> _Taken:
        """The answer while another create of this code neither ends nor gives up."""
        found = await self._table.read(key)
        if isinstance(found, Link) or (found is not None and found.user_id != request.user_id):
            return _Taken()
        raise Unavailable("unavailable", "The code cannot be reserved just now.", retry_after_s=5)

    async def _taken(self, attempt: Attempt) -> Link | Late:
        """The refusal, once it is clear that it is not this very request that took the code [I2]. Late: a repeat may
        have taken it by another event of the request."""
        if attempt.is_remembered:
            earlier = await self._attempts.outcome(attempt)
            if earlier is not None:
                return earlier
        raise AlreadyExists(Reason.CUSTOM_CODE_TAKEN.code, "This code is taken.")


def _claim(reservation: Reservation) -> Claim:
    return Claim(user_id=reservation.user_id, redis_run_id=reservation.redis_run_id, at=reservation.at)
