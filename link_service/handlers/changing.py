"""The flows that change links. Each decides in the domain and applies by a call of `mutate`, never sent twice [R1]."""

import logging
from collections.abc import Callable

from chassis.clock import Clock
from chassis.errors import Aborted, FailedPrecondition, Internal, Unavailable
from chassis.telemetry import current_trace_id, current_traceparent
from contracts.cache import Mutation
from contracts.codes import CodePermutation
from contracts.link import Link, LinkEvent, LinkKey, link_key
from contracts.reasons import Reason
from link_service.domain import links
from link_service.domain.changes import Gone, Refusal
from link_service.domain.ids import IdStock
from link_service.domain.intents import Attempt
from link_service.domain.links import Already, NotTheirs, Stale, Terms, Violations, Who
from link_service.handlers.attempts import Attempts, Carried, Repeatable
from link_service.handlers.metrics import LINKS_CHANGED, LINKS_CREATED, RACES_LOST
from link_service.handlers.reading import Base, Reader
from link_service.handlers.refusals import full, not_found, told
from link_service.ports import Conflict, Done, Full, Late, LeaseNeeded, LinkCache

Decide = Callable[[Link, Who], LinkEvent | Refusal]  # pure, and repeated after a lost race
_RACES_MAX = 32  # nobody loses so often; the caller's deadline comes first
logger = logging.getLogger(__name__)


class GeneratedCreation:
    """Creates under generated codes: an id in hand, its code, one call to Redis; no database, no Kafka."""

    def __init__(
        self, cache: LinkCache, attempts: Attempts, stock: IdStock, codes: CodePermutation, clock: Clock
    ) -> None:
        self._cache = cache
        self._attempts = attempts
        self._stock = stock
        self._codes = codes
        self._clock = clock

    async def create(self, terms: Terms, request: Repeatable) -> Link:
        """The link that was made, or that an earlier call under the same idempotency key made.

        Raises:
            Unavailable: no ids in hand, Redis is away or full; or, reason outcome_unknown, it may have been made.
        """
        async with self._attempts.carry(request, self._new_key()) as carried:
            return await self._apply(terms, request, carried)

    async def _apply(self, terms: Terms, request: Repeatable, carried: Carried) -> Link:
        while True:
            attempt = carried.attempt
            event = links.create(terms, attempt.key, who=who(request, attempt), now=self._clock.now())
            verdict = await self._cache.mutate(mutation_of(event, attempt, Base(None), generated=True))
            match verdict:
                case Done(link, repeated):
                    if not repeated:
                        LINKS_CREATED.labels("generated").inc()
                    return link
                case Late():
                    carried.attempt = await self._attempts.renew(request, attempt, self._new_key())
                case Conflict() | LeaseNeeded():
                    logger.error("a generated code is taken: was the counter of ids restored from a backup?")
                    raise Internal("internal", "A generated code was not free.")
                case Full():
                    raise full()

    def _new_key(self) -> LinkKey:
        number = self._stock.take()
        if number is None:
            raise Unavailable("unavailable", "There are no codes in hand just now.", retry_after_s=1)
        return link_key(self._codes.code_of(number))


class Changes:
    """Changes links: reads, decides, applies; and again when the link changed meanwhile."""

    def __init__(self, cache: LinkCache, reader: Reader, attempts: Attempts) -> None:
        self._cache = cache
        self._reader = reader
        self._attempts = attempts

    async def apply(self, key: LinkKey, request: Repeatable, decide: Decide) -> Link:
        """The link as the decision leaves it, or as it is if there was nothing to do.

        Raises:
            NotFound: there is no such link in this account.
            Aborted: the caller saw another version.
            FailedPrecondition: the link is deleted.
            InvalidArgument: what is wanted is not allowed.
            Unavailable: Redis or the table is away; or, reason outcome_unknown, it may have been changed.
        """
        async with self._attempts.carry(request, key) as carried:
            return await self._apply(key, request, decide, carried)

    async def _apply(self, key: LinkKey, request: Repeatable, decide: Decide, carried: Carried) -> Link:
        for _ in range(_RACES_MAX):
            attempt = carried.attempt
            base = await self._reader.base(key)
            actor = who(request, attempt)
            decision = decide(base.link, actor) if base.link is not None else NotTheirs()  # nobody's; told alike
            if not isinstance(decision, LinkEvent):
                await self._reader.give_back(key, base)
                return await self._settled(decision, attempt)
            verdict = await self._cache.mutate(mutation_of(decision, attempt, base))
            match verdict:
                case Done(link, repeated):
                    if not repeated:
                        LINKS_CHANGED[decision.type].inc()
                    return link
                case Late():
                    await self._reader.give_back(key, base)
                    carried.attempt = await self._attempts.renew(request, attempt, key)
                case Conflict() | LeaseNeeded():
                    RACES_LOST.inc()
                case Full():
                    await self._reader.give_back(key, base)
                    raise full()
        raise Unavailable("unavailable", "The link changes too often just now.", retry_after_s=1)

    async def _settled(self, verdict: Refusal, attempt: Attempt) -> Link:
        """What is answered instead of an event, once it is clear that the event was not applied earlier [I2].

        "Nothing to do" is an answer like any other: it is remembered, else a repeat could find something to do [I1].
        """
        if attempt.is_remembered:
            if isinstance(verdict, Already):
                return await self._cache.remember(attempt.key, attempt.event_id, verdict.link)
            earlier = await self._cache.seen(attempt.key, attempt.event_id)
            if earlier is not None:
                return earlier
        match verdict:
            case Already(link):
                return link
            case Stale(current):
                raise Aborted(Reason.VERSION_CONFLICT.code, f"The link is at version {current} now.")
            case Gone():
                raise FailedPrecondition(Reason.STATE_CONFLICT.code, "The link is deleted; restore it first.")
            case Violations():
                raise told(verdict)
            case NotTheirs():
                raise not_found()


def mutation_of(event: LinkEvent, attempt: Attempt, base: Base, *, generated: bool = False) -> Mutation:
    """The call that applies an event decided on a base."""
    return Mutation(
        event=event,
        base_version=base.link.version if base.link is not None else 0,
        generated=generated,
        token=base.token,
        not_after=attempt.not_after,
        remember=attempt.is_remembered,
        traceparent=current_traceparent(),
    )


def who(request: Repeatable, attempt: Attempt) -> Who:
    """Who acts, by which event, in which trace."""
    return Who(request.user_id, attempt.event_id, current_trace_id())
