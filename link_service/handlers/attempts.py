"""From a request to the event that stands for it: a new one, or the one its idempotency key stands for already [I1]."""

from dataclasses import dataclass

from chassis.clock import Clock, uuid7
from chassis.errors import InvalidArgument
from contracts.link import EventId, LinkKey, UserId
from contracts.reasons import Reason
from link_service.domain.intents import APPLY_WITHIN, Attempt, Intent
from link_service.ports import Intents, LinkCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatable:
    """An idempotency key (empty: the request has none), whose it is, and the hash of the request it came with."""

    user_id: UserId
    idempotency_key: str
    body_hash: str


class Attempts:
    """Opens attempts, and replaces those that came too late."""

    def __init__(self, cache: LinkCache, intents: Intents, clock: Clock) -> None:
        self._cache = cache
        self._intents = intents
        self._clock = clock

    async def open(self, request: Repeatable, key: LinkKey) -> Attempt:
        """The attempt of a request, on this link unless an earlier call under the idempotency key chose another.

        Raises:
            InvalidArgument: the idempotency key came with another request before.
            Unavailable: Redis is away; nothing was done.
        """
        if not request.idempotency_key:
            return Attempt(event_id=self._event_id(), key=key)
        mine = await self._intent(request, key)
        stored = await self._intents.begin(request.user_id, request.idempotency_key, mine)
        if stored.body_hash != request.body_hash:
            raise InvalidArgument(
                Reason.IDEMPOTENCY_KEY_REUSED.code, "This idempotency key was used with another request."
            )
        return stored.attempt

    async def renew(self, request: Repeatable, late: Attempt, key: LinkKey) -> Attempt:
        """The attempt after one that was LATE: it was never applied and never will be, so another event may be, on
        this link.

        Raises:
            Unavailable: Redis is away; nothing was done.
        """
        assert late.not_after is not None, "only remembered attempts can be late"
        old = Intent(body_hash=request.body_hash, event_id=late.event_id, key=late.key, not_after=late.not_after)
        new = await self._intent(request, key)
        stored = await self._intents.swap(request.user_id, request.idempotency_key, old=old, new=new)
        return stored.attempt if stored is not None else await self.open(request, key)

    async def _intent(self, request: Repeatable, key: LinkKey) -> Intent:
        return Intent(
            body_hash=request.body_hash,
            event_id=self._event_id(),
            key=key,
            not_after=await self._cache.now() + APPLY_WITHIN,
        )

    def _event_id(self) -> EventId:
        return EventId(uuid7(self._clock.now()))
