"""Where a link is now: Redis first, and the table only where Redis itself said "absent" [R2, R3, R5]."""

import asyncio
from dataclasses import dataclass
from enum import Enum

from chassis.clock import Clock
from chassis.errors import Unavailable
from contracts.cache import LeaseToken
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError
from link_service.handlers.metrics import RESOLVED
from link_service.handlers.table_reads import Flight, TableReads, landed
from link_service.ports import Held, Leased, LinkCache, Present, Restoring

_HELD_POLL_S = 0.02  # a lease is held for the length of one consistent read, mostly
_HELD_POLLS_MAX = 50
_WARM_POLL_S = 0.1
_WARM_POLLS_MAX = 35  # a little more than a lease lives whose holder died


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


class Warmth(Enum):
    """What a link's entry in Redis was found to be, or made; the value is the label of read_requests_total."""

    WARM = "warm"  # there already
    FILLED = "filled"
    ABSENT = "absent"  # there is no such link
    HELD = "held"  # somebody is making the link, or another reader is at it


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
        except Restoring:
            raise  # Redis is there, and has perhaps forgotten a delete that the table does not have yet [R8]
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

    async def warm(self, key: LinkKey) -> Warmth:
        """Sees to it that Redis has the link's entry, if there is such a link. Waits while another reader is at it.

        Raises:
            Unavailable: Redis or the table is away.
            UndecodableError: the table's row is not one of ours.
        """
        for _ in range(_WARM_POLLS_MAX):
            match await self._cache.lease(key):
                case Present():
                    return Warmth.WARM
                case Leased(token):
                    link = await self._fill(key, token, await self._read_leased(key, token))
                    return Warmth.ABSENT if link is None else Warmth.FILLED
                case Held():
                    await self._clock.sleep(_WARM_POLL_S)
        return Warmth.HELD

    async def give_back(self, key: LinkKey, base: Base) -> None:
        """Ends the lease of a base that changes nothing, with what was read, so that the next reader finds it."""
        if base.token is not None:
            await self._fill(key, base.token, base.link)

    async def _read_leased(self, key: LinkKey, token: LeaseToken) -> Link | None:
        flight: Flight | None = None
        try:
            flight = self._reads.board(key)
            return await landed(flight)
        except asyncio.CancelledError:
            if flight is not None:  # the caller's time is over; its successor's answer is on the way
                self._reads.go_on(self._keep(key, token, flight))
            raise
        except (Unavailable, UndecodableError):
            await self._release(key, token)
            raise

    async def _keep(self, key: LinkKey, token: LeaseToken, flight: Flight) -> None:
        """What the caller would have done with the flight's answer, had it waited."""
        try:
            link = await landed(flight)
        except (Unavailable, UndecodableError):
            await self._release(key, token)
        else:
            await self._fill(key, token, link)

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
