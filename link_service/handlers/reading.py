"""Where a link is now: Redis first, and the table only where Redis itself said "absent" [R2, R3, R5]."""

import asyncio
from dataclasses import dataclass

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.task_room import TaskRoom
from contracts.cache import LeaseToken
from contracts.link import Link, LinkKey
from contracts.link_rows import Reservation
from link_service.handlers.metrics import RESOLVED
from link_service.ports import Held, Leased, LinkCache, LinkTable, Present

READ_TIMEOUT_S = 2.0  # of one read of the table; callers have their own, shorter deadlines
_HELD_POLL_S = 0.02  # a lease is held for the length of one consistent read, mostly
_HELD_POLLS_MAX = 50


@dataclass(frozen=True, slots=True)
class Base:
    """What a change is decided on: the current link, and the lease under which it was read from the table."""

    link: Link | None
    token: LeaseToken | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """An answer for a code. `unconfirmed`: Redis could not say whether it is the newest."""

    link: Link | None
    unconfirmed: bool = False


class TableReads:
    """Consistent reads of the projection, one at a time per key.

    A read that has been sent takes no new passengers, since it may be older than what they know; they share the next
    one, which begins when it ends. So a code that everybody asks for costs one read at a time.
    """

    def __init__(self, table: LinkTable, room: TaskRoom) -> None:
        self._table = table
        self._room = room
        self._sent: dict[LinkKey, asyncio.Future[Link | None]] = {}
        self._next: dict[LinkKey, asyncio.Future[Link | None]] = {}

    async def read(self, key: LinkKey) -> Link | None:
        """The link as a read that begins now, or later, finds it; None: there is none, or only a reservation.

        Raises:
            Unavailable: the database is away, or did not answer within 2 s.
        """
        flight = self._next.get(key)
        if flight is None:
            flight = self._next[key] = self._room.start(self._read(key), timeout_s=3 * READ_TIMEOUT_S)
            flight.add_done_callback(lambda done: self._forget(key, done))
        await asyncio.wait([flight])  # unlike awaiting it, this leaves the flight alone when this caller gives up
        return flight.result()

    async def _read(self, key: LinkKey) -> Link | None:
        before = self._sent.get(key)
        if before is not None:
            await asyncio.wait([before])
        self._sent[key] = self._next.pop(key)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                found = await self._table.read(key)
        except TimeoutError as exc:
            raise Unavailable("unavailable", "The database does not answer.", retry_after_s=1) from exc
        return None if isinstance(found, Reservation) else found

    def _forget(self, key: LinkKey, flight: "asyncio.Future[Link | None]") -> None:
        for place in (self._sent, self._next):
            if place.get(key) is flight:
                del place[key]


class Reader:
    """Reads links for redirects, for owners and for changes."""

    def __init__(self, cache: LinkCache, reads: TableReads, clock: Clock) -> None:
        self._cache = cache
        self._reads = reads
        self._clock = clock

    async def resolve(self, key: LinkKey) -> Resolved:
        """The newest acknowledged version; when Redis is away, what the table has, unconfirmed.

        Raises:
            Unavailable: neither can tell; or Redis is away and the table has nothing, which proves nothing [L4].
        """
        try:
            return Resolved(await self.newest(key))
        except _RedisAway:
            link = await self._reads.read(key)
        RESOLVED.labels("unconfirmed").inc()
        if link is None:
            raise Unavailable("unavailable", "Whether the link exists cannot be confirmed now.", retry_after_s=1)
        return Resolved(link, unconfirmed=True)

    async def newest(self, key: LinkKey) -> Link | None:
        """The newest acknowledged version, confirmed by Redis; None: there is none.

        Raises:
            Unavailable: Redis or the table is away.
        """
        try:
            answer = await self._cache.lease(key)
        except Unavailable as exc:
            raise _RedisAway(exc.reason, exc.message, retry_after_s=exc.retry_after_s) from exc
        match answer:
            case Present(link):
                RESOLVED.labels("redis").inc()
                return link
            case Leased(token):
                RESOLVED.labels("table").inc()
                return await self._fill(key, token, await self._read_leased(key, token))
            case Held():
                RESOLVED.labels("table").inc()
                return await self._reads.read(key)

    async def base(self, key: LinkKey) -> Base:
        """What a change of the link is decided on. Waits up to a second while another holds the lease.

        A base with a token ends in `mutate`, or in `give_back`.

        Raises:
            Unavailable: Redis or the table is away, or the lease is held for long: the code is just being created.
        """
        for _ in range(_HELD_POLLS_MAX):
            match await self._cache.lease(key):
                case Present(link):
                    return Base(link)
                case Leased(token):
                    return Base(await self._read_leased(key, token), token)
                case Held():
                    await self._clock.sleep(_HELD_POLL_S)
        raise Unavailable("unavailable", "The link is being changed by another request.", retry_after_s=1)

    async def give_back(self, key: LinkKey, base: Base) -> None:
        """Ends the lease of a base that changes nothing, with what was read, so that the next reader finds it."""
        if base.token is not None:
            await self._fill(key, base.token, base.link)

    async def _read_leased(self, key: LinkKey, token: LeaseToken) -> Link | None:
        try:
            return await self._reads.read(key)
        except Unavailable:
            await self._release(key, token)
            raise

    async def _fill(self, key: LinkKey, token: LeaseToken, link: Link | None) -> Link | None:
        if link is None:
            await self._release(key, token)
            return None
        try:
            return await self._cache.fill(token, link)
        except Unavailable:
            return link  # read after Redis had said "absent": true, only not cached

    async def _release(self, key: LinkKey, token: LeaseToken) -> None:
        try:
            await self._cache.release(key, token)
        except Unavailable:
            return  # it ends by itself in 3 s


class _RedisAway(Unavailable):
    """Redis did not answer; the table was not asked."""
