"""The flows that change links. Each decides in the domain and applies by a call of `mutate`, never sent twice [R1]."""

import logging

from chassis.clock import Clock
from chassis.errors import Aborted, Internal, NotFound, Unavailable
from chassis.telemetry import current_trace_id, current_traceparent
from contracts.cache import Mutation
from contracts.codes import CodePermutation
from contracts.link import Link, LinkEvent, LinkKey, link_key
from contracts.reasons import Reason
from link_service.domain import links
from link_service.domain.ids import IdStock
from link_service.domain.intents import Attempt
from link_service.domain.links import Already, NotTheirs, Stale, Terms, Who
from link_service.handlers.attempts import Attempts, Repeatable
from link_service.handlers.metrics import LINKS_CREATED, LINKS_DELETED, RACES_LOST
from link_service.handlers.reading import Base, Reader
from link_service.ports import Conflict, Done, Full, Late, LeaseNeeded, LinkCache

_FULL_RETRY_S = 5  # the relay drains thousands of events a second once Kafka is back
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
        attempt = await self._attempts.open(request, self._new_key())
        while True:
            event = links.create(terms, attempt.key, who=who(request, attempt), now=self._clock.now())
            verdict = await self._cache.mutate(mutation_of(event, attempt, Base(None), generated=True))
            match verdict:
                case Done(link, repeated):
                    if not repeated:
                        LINKS_CREATED.labels("generated").inc()
                    return link
                case Late():
                    attempt = await self._attempts.renew(request, attempt, self._new_key())
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


class Deletion:
    """Ends links: reads, decides, applies; and again when the link changed meanwhile."""

    def __init__(self, cache: LinkCache, reader: Reader, attempts: Attempts, clock: Clock) -> None:
        self._cache = cache
        self._reader = reader
        self._attempts = attempts
        self._clock = clock

    async def delete(self, key: LinkKey, request: Repeatable, *, if_version: int) -> Link:
        """The tombstone, also of a link that was deleted before.

        Raises:
            NotFound: there is no such link in this account.
            Aborted: the caller saw another version.
            Unavailable: Redis or the table is away; or, reason outcome_unknown, it may have been deleted.
        """
        attempt = await self._attempts.open(request, key)
        for _ in range(_RACES_MAX):
            base = await self._reader.base(key)
            decision = self._decide(base, who(request, attempt), if_version)
            if not isinstance(decision, LinkEvent):
                await self._reader.give_back(key, base)
                return await self._refused(decision, attempt)
            verdict = await self._cache.mutate(mutation_of(decision, attempt, base))
            match verdict:
                case Done(link, repeated):
                    if not repeated:
                        LINKS_DELETED.inc()
                    return link
                case Late():
                    await self._reader.give_back(key, base)
                    attempt = await self._attempts.renew(request, attempt, key)
                case Conflict() | LeaseNeeded():
                    RACES_LOST.inc()
                case Full():
                    await self._reader.give_back(key, base)
                    raise full()
        raise Unavailable("unavailable", "The link changes too often just now.", retry_after_s=1)

    def _decide(self, base: Base, actor: Who, if_version: int) -> LinkEvent | Already | Stale | NotTheirs:
        if base.link is None:
            return NotTheirs()  # nobody's; told alike
        return links.delete(base.link, who=actor, if_version=if_version, now=self._clock.now())

    async def _refused(self, verdict: Already | Stale | NotTheirs, attempt: Attempt) -> Link:
        """What is answered instead of an event, once it is clear that the event was not applied earlier [I2]."""
        if attempt.is_remembered:
            earlier = await self._cache.seen(attempt.key, attempt.event_id)
            if earlier is not None:
                return earlier
        match verdict:
            case Already(link):
                return link
            case Stale(current):
                raise Aborted(Reason.VERSION_CONFLICT.code, f"The link is at version {current} now.")
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


def full() -> Unavailable:
    """Redis has no room until events have gone to Kafka."""
    return Unavailable("unavailable", "Too many changes wait to be recorded.", retry_after_s=_FULL_RETRY_S)


def not_found() -> NotFound:
    """Nothing there, or somebody else's: the caller cannot tell which."""
    return NotFound(Reason.LINK_NOT_FOUND.code, "There is no such link.")
