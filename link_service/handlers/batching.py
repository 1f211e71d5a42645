"""BatchCreateLinks: each item stands for itself, and what many have in common is done once.

An item that asks for a generated code without an idempotency key is decided here and applied in one pipeline with its
like. One with a key or with a chosen code takes several steps, some at the database: it goes its own way, as CreateLink
does, beside the pipeline. The answer comes when the slowest is done; a gateway that does not want to wait for these
sends them one by one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from opentelemetry.trace import Span, SpanKind

from chassis.auth import principal_of
from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, Internal, ServiceError, Unavailable
from chassis.item_problems import problem_of
from chassis.telemetry import begin_span, is_traceparent, span, traceparent_of
from contracts.link import UserId
from contracts.scopes import LINKS_WRITE
from link_service.domain import links
from link_service.domain.destinations import DestinationPolicy
from link_service.domain.links import Violations
from link_service.handlers.changing import GeneratedCreation, Wanted
from link_service.handlers.decoding import wish_of
from link_service.handlers.refusals import invalid_field, told
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb

ITEMS_MAX = 100
_ALONE_MAX = 16  # items of one batch that go their own way at a time
_SPAN = "shortener.link.v1.LinkService/CreateLink"  # in a trace a create looks the same, however it travelled
_ATTRIBUTES = {"rpc.system.name": "grpc", "rpc.method": _SPAN}
Outcome = link_pb2.Link | ServiceError
CreateAlone = Callable[[pb.CreateLinkRequest], Awaitable[link_pb2.Link]]
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Ready:
    """An item that waits for the pipeline, and its span (None: its trace is not kept)."""

    place: int
    wanted: Wanted
    span: Span | None


class BatchCreation:
    """Makes many links. `create_alone` is the whole of CreateLink."""

    def __init__(
        self, generated: GeneratedCreation, create_alone: CreateAlone, policy: DestinationPolicy, clock: Clock
    ) -> None:
        self._generated = generated
        self._create_alone = create_alone
        self._policy = policy
        self._clock = clock

    async def create(self, request: pb.BatchCreateLinksRequest) -> pb.BatchCreateLinksResponse:
        """One result for each item, in order.

        Raises:
            InvalidArgument: there are too many items; none was begun.
        """
        items = request.items
        if len(items) > ITEMS_MAX:
            raise invalid_field("items", f"A batch has at most {ITEMS_MAX} links.")
        outcomes: list[Outcome] = [_NOT_BEGUN] * len(items)
        ready: list[_Ready] = []
        alone: list[int] = []
        for place, item in enumerate(items):
            if item.request.custom_code or item.request.request_id:
                alone.append(place)
            elif isinstance(decided := self._decide(place, item), _Ready):
                ready.append(decided)
            else:
                outcomes[place] = decided
        if alone:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._together(ready, outcomes))
                places = asyncio.Semaphore(_ALONE_MAX)
                for place in alone:
                    tasks.create_task(self._one(place, items[place], places, outcomes))
        else:
            await self._together(ready, outcomes)
        return _response(outcomes)

    def _decide(self, place: int, item: pb.BatchedCreateLink) -> _Ready | ServiceError:
        """Everything before Redis; what is wrong with one item is that item's."""
        try:
            if _is_over(item):
                return _too_late()
            principal = principal_of(item.request.principal, LINKS_WRITE)
            terms = links.check(wish_of(item.request), now=self._clock.now(), policy=self._policy)
            if isinstance(terms, Violations):
                return told(terms)
            traceparent = item.traceparent if is_traceparent(item.traceparent) else None
            current = begin_span(_SPAN, SpanKind.SERVER, parent=traceparent, attributes=_ATTRIBUTES)
            wanted = Wanted(
                terms, UserId(principal.user_id), traceparent if current is None else traceparent_of(current)
            )
            return _Ready(place, wanted, current)
        except ServiceError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 (the boundary of an item: told to its caller, logged by _unexpected)
            return _unexpected(exc)

    async def _together(self, ready: Sequence[_Ready], outcomes: list[Outcome]) -> None:
        if not ready:
            return
        try:
            made = await self._generated.create_all([item.wanted for item in ready])
            for item, outcome in zip(ready, made, strict=True):
                outcomes[item.place] = outcome
                if item.span is not None and isinstance(outcome, ServiceError):
                    _describe(item.span, outcome)
        except Exception:
            logger.exception("the creates of a batch failed")  # perhaps behind Redis: nobody knows which are made
            for item in ready:
                outcomes[item.place] = _lost()
        finally:
            for item in ready:
                if item.span is not None:
                    item.span.end()

    async def _one(
        self,
        place: int,
        item: pb.BatchedCreateLink,
        places: asyncio.Semaphore,
        outcomes: list[Outcome],
    ) -> None:
        """An item that goes its own way, within its own time."""
        begun = False
        outcome: Outcome
        with span(_SPAN, SpanKind.SERVER, parent=item.traceparent, attributes=_ATTRIBUTES) as current:
            try:
                async with asyncio.timeout(_left_s(item)), places:
                    begun = not _is_over(item)
                    outcome = await self._create_alone(item.request) if begun else _too_late()
            except TimeoutError:
                outcome = DeadlineExceeded("deadline_exceeded", "The deadline is over.") if begun else _too_late()
            except ServiceError as exc:
                outcome = exc
            except Exception as exc:  # noqa: BLE001 (as in _decide)
                outcome = _unexpected(exc)
            if isinstance(outcome, ServiceError):
                _describe(current, outcome)
        outcomes[place] = outcome


def _is_over(item: pb.BatchedCreateLink) -> bool:
    return item.HasField("time_left") and _seconds(item.time_left) <= 0


def _left_s(item: pb.BatchedCreateLink) -> float | None:
    return _seconds(item.time_left) if item.HasField("time_left") else None


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _describe(current: Span, error: ServiceError) -> None:
    current.set_attribute("rpc.response.status_code", error.status.name)
    current.set_attribute("error.type", error.reason)


def _too_late() -> Unavailable:
    """Nothing was done, and the caller may say so."""
    return Unavailable("unavailable", "There was too much to do.", retry_after_s=1)


def _lost() -> Unavailable:
    return Unavailable("outcome_unknown", "What became of it is not known.")


def _unexpected(failure: Exception) -> Internal:
    logger.error("an item of a batch failed", exc_info=failure)
    return Internal("internal", "Something went wrong on our side.")


def _response(outcomes: Sequence[Outcome]) -> pb.BatchCreateLinksResponse:
    response = pb.BatchCreateLinksResponse()
    for outcome in outcomes:
        if isinstance(outcome, ServiceError):
            response.results.add(problem=problem_of(outcome))
        else:
            response.results.add(link=outcome)  # one copy; a list of results is two
    return response


_NOT_BEGUN = Internal("internal", "Something went wrong on our side.")
