"""From a request to the event that stands for it: a new one, or the one its idempotency key stands for already [I1]."""

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chassis.clock import Clock, uuid7
from chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from contracts.link import EventId, Link, LinkKey, UserId
from link_service.domain.intents import APPLY_WITHIN, Attempt, Intent
from link_service.handlers.refusals import NoRoom, reused
from link_service.ports import Intents, Late, LinkCache

# A flow ends with one of these only before `mutate` or after a verdict of it that did nothing, and never repeats a call
# whose outcome it does not know. Unavailable is not among them: it may hide an answer [I3]. But no room is an answer,
# and a Redis that is full must not be filled further by the intents of what it refuses.
_REFUSALS = (Aborted, AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NoRoom, NotFound)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatable:
    """An idempotency key (empty: the request has none), whose it is, and the hash of the request it came with."""

    user_id: UserId
    idempotency_key: str
    body_hash: str


@dataclass(slots=True)
class Carried:
    """A request under way; `attempt` is the one that stands for it now."""

    attempt: Attempt


class Attempts:
    """Opens attempts, replaces those that came too late, and frees the keys of those that were refused."""

    def __init__(self, cache: LinkCache, intents: Intents, clock: Clock) -> None:
        self._cache = cache
        self._intents = intents
        self._clock = clock

    @contextlib.asynccontextmanager
    async def carry(self, request: Repeatable, key: LinkKey) -> AsyncIterator[Carried]:
        """The attempt of a request, see `open`. If the flow inside ends with a refusal and nobody else is at the same
        request, its idempotency key is free again afterwards; a time-out or a cancellation keeps it [I3]."""
        carried = Carried(await self.open(request, key))
        try:
            yield carried
        except _REFUSALS:
            await self._give_up(request, carried.attempt)
            raise

    async def answered(self, request: Repeatable) -> Link | None:
        """What an earlier call under the request's idempotency key was answered, for a repeat that cannot be carried
        out any more; None: there was none, or nothing came of it.

        Raises:
            InvalidArgument: the idempotency key came with another request before.
            Unavailable: Redis is away; or an earlier call may still be under way.
        """
        if not request.idempotency_key:
            return None
        intent = await self._intents.find(request.user_id, request.idempotency_key)
        if intent is None:
            return None
        _must_match(intent, request)
        outcome = await self.outcome(intent.attempt)
        if outcome is None:
            raise Unavailable("unavailable", "An earlier request under this key is still under way.", retry_after_s=1)
        return None if isinstance(outcome, Late) else outcome

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
        _must_match(stored, request)
        return stored.attempt

    async def renew(self, request: Repeatable, late: Attempt, key: LinkKey) -> Attempt:
        """The attempt after one that was LATE: it was never applied and never will be, so another event may be, on
        this link.

        Raises:
            Unavailable: Redis is away; nothing was done.
        """
        new = await self._intent(request, key)
        old = _intent_of(request, late)
        stored = await self._intents.swap(request.user_id, request.idempotency_key, old=old, new=new)
        if stored is None:
            return await self.open(request, key)
        _must_match(stored, request)
        return stored.attempt

    async def outcome(self, attempt: Attempt) -> Link | Late | None:
        """What came of the request so far, before it is refused [I2]; None: nothing.

        While its time lasts, no other event stands for the request, and what `seen` said before is all there is to
        know. Late: it is over, the event was not applied and never will be, but another one may have been.

        Raises:
            Unavailable: Redis is away.
        """
        earlier = await self._cache.seen(attempt.key, attempt.event_id)
        if earlier is not None or attempt.not_after is None or await self._cache.now() <= attempt.not_after:
            return earlier
        return await self._cache.seen(attempt.key, attempt.event_id) or Late()  # it may have been applied in between

    async def _give_up(self, request: Repeatable, attempt: Attempt) -> None:
        if not attempt.is_remembered:
            return
        try:
            await self._intents.give_up(request.user_id, request.idempotency_key, _intent_of(request, attempt))
        except Unavailable as exc:
            logger.info("an idempotency key stays taken: %s", exc)  # for 24 h, which is safe

    async def _intent(self, request: Repeatable, key: LinkKey) -> Intent:
        return Intent(
            body_hash=request.body_hash,
            event_id=self._event_id(),
            key=key,
            not_after=await self._cache.now() + APPLY_WITHIN,
        )

    def _event_id(self) -> EventId:
        return EventId(uuid7(self._clock.now()))


def _intent_of(request: Repeatable, attempt: Attempt) -> Intent:
    assert attempt.not_after is not None, "a remembered attempt has a limit"
    return Intent(body_hash=request.body_hash, event_id=attempt.event_id, key=attempt.key, not_after=attempt.not_after)


def _must_match(stored: Intent, request: Repeatable) -> None:
    """Turns away another request under the same key.

    Raises:
        InvalidArgument: it is another one.
    """
    if stored.body_hash != request.body_hash:
        raise reused()
