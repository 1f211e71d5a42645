"""The flows that change links. Each decides in the domain and applies by a call of `mutate`, never sent twice [R1]."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from chassis.clock import Clock, uuid7
from chassis.errors import Aborted, FailedPrecondition, Internal, ServiceError, Unavailable
from chassis.telemetry import current_trace_id, current_traceparent, trace_id_of
from contracts.cache import Mutation
from contracts.codes import CodePermutation
from contracts.link import EventId, Link, LinkEvent, LinkKey, UserId, link_key
from contracts.link_codec import link_to_message
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
from link_service.ports import Conflict, Done, Full, Late, LeaseNeeded, LinkCache, Verdict
from shortener.link.v1 import link_pb2

Decide = Callable[[Link, Who], LinkEvent | Refusal]  # pure, and repeated after a lost race
_RACES_MAX = 32  # nobody loses so often; the caller's deadline comes first
logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """One of many links that are to be made: what, for whom, and the traceparent of who waits for it."""

    terms: Terms
    user_id: UserId
    traceparent: str | None


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

    async def create_all(self, wanted: Sequence[Wanted]) -> Sequence[link_pb2.Link | ServiceError]:
        """For each the link that was made, or what `create` would have raised of it; one call to Redis for all. None
        has an idempotency key."""
        found: list[link_pb2.Link | ServiceError] = [_no_codes()] * len(wanted)
        mutations: list[Mutation] = []
        messages: list[link_pb2.Link] = []
        now = self._clock.now()
        for item in wanted:  # who comes when the ids are used up leaves those before alone
            number = self._stock.take()
            if number is None:
                break
            actor = Who(item.user_id, EventId(uuid7(now)), trace_id_of(item.traceparent))
            event = links.create(item.terms, self._codes.code_of(number), who=actor, now=now)
            message = link_to_message(event.link)  # for Redis, and for the answer
            encoded = message.SerializeToString(deterministic=True)
            messages.append(message)
            mutations.append(
                Mutation(event=event, base_version=0, generated=True, traceparent=item.traceparent, encoded=encoded)
            )
        if mutations:
            verdicts = await self._cache.mutate_all(mutations)
            found[: len(mutations)] = map(_made, mutations, messages, verdicts)
        LINKS_CREATED.labels("generated").inc(sum(isinstance(item, link_pb2.Link) for item in found))
        return found

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
                    raise _not_free()
                case Full():
                    raise full()

    def _new_key(self) -> LinkKey:
        number = self._stock.take()
        if number is None:
            raise _no_codes()
        return link_key(self._codes.code_of(number))


def _made(mutation: Mutation, message: link_pb2.Link, verdict: Verdict | Unavailable) -> link_pb2.Link | ServiceError:
    """What a verdict on the creation of one of many links means. `message`: the link's."""
    match verdict:
        case Done(link):
            return message if link is mutation.event.link else link_to_message(link)
        case Full():
            return full()
        case Conflict() | LeaseNeeded() | Late():
            return _not_free()
        case Unavailable():
            return verdict


def _not_free() -> Internal:
    logger.error("a generated code is taken: was the counter of ids restored from a backup?")
    return Internal("internal", "A generated code was not free.")


def _no_codes() -> Unavailable:
    return Unavailable("unavailable", "There are no codes in hand just now.", retry_after_s=1)


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
                answer = await self._settled(decision, attempt)
                if not isinstance(answer, Late):
                    return answer
                carried.attempt = await self._attempts.renew(request, attempt, key)
                continue
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

    async def _settled(self, verdict: Refusal, attempt: Attempt) -> Link | Late:
        """What is answered instead of an event, once it is clear that the event was not applied earlier [I2].

        "Nothing to do" is an answer like any other: it is remembered, else a repeat could find something to do [I1].
        Late: a repeat may have made another event of the request by now, which alone knows the answer.
        """
        if attempt.not_after is not None:
            if isinstance(verdict, Already):
                return await self._cache.remember(attempt.key, attempt.event_id, verdict.link, attempt.not_after)
            earlier = await self._attempts.outcome(attempt)
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
