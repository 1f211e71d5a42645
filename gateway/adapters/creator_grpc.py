"""New links, from link_service: creates that wait at the same time travel as one call, and know nothing of each other.

A call between processes costs half a millisecond of CPU in the two, whatever it carries. So creates of one turn of the
loop share one, and while two calls are under way the next ones collect. Each keeps its own deadline, its own trace and
its own outcome; who gives up takes nobody along. None is sent twice [R1].

A chosen code and an idempotency key mean several steps, some at the database. Such a create goes by itself: in a batch
the others would wait for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from opentelemetry.trace import Span, SpanKind

from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, Internal, ServiceError, Unavailable
from chassis.item_problems import error_of
from chassis.telemetry import begin_span, current_traceparent, start_trace, traceparent_of
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub

TIMEOUT_S = 2.0
_BATCH_MAX = 100
_BATCH_BYTES_MAX = 512 << 10  # half of what a server takes; one create is at most 64 KiB
_CALLS_MAX = 2  # under way; with one, nobody would be on the way while an answer is
_WAITING_MAX = 2048  # a third of a second of creates at full speed; who would wait longer had better come again
_SPAN = "shortener.link.v1.LinkService/CreateLink"  # in a trace a create looks the same, however it travelled
_ATTRIBUTES = {"rpc.system.name": "grpc", "rpc.method": _SPAN, "peer.service": "link_service"}
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Create:
    """A create on its way. `answer` is its caller's alone."""

    request: pb.CreateLinkRequest
    traceparent: str
    deadline: float  # monotonic
    answer: asyncio.Future[link_pb2.Link]
    sent: bool = False


class GrpcLinkCreator:
    """A LinkCreator. `tasks` runs the calls and outlives this object."""

    def __init__(
        self, links: "LinkServiceAsyncStub", *, clock: Clock, tasks: asyncio.TaskGroup, waiting_max: int = _WAITING_MAX
    ) -> None:
        self._links = links
        self._clock = clock
        self._tasks = tasks
        self._waiting_max = waiting_max
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Create] = deque()  # not sent yet, oldest first
        self._unanswered: deque[_Create] = deque()  # sent or not, by deadline: all have the same time, from the start
        self._timer: asyncio.TimerHandle | None = None
        self._calls = 0
        self._flush_is_due = False

    async def create(self, request: pb.CreateLinkRequest) -> link_pb2.Link:
        """The link as stored.

        Raises:
            ServiceError: link_service's own; too many wait; or no answer within two seconds, after which the link may
                have been made (DeadlineExceeded, and what `may_have_happened` says of it).
        """
        if request.request_id or request.custom_code:
            return (await self._links.CreateLink(request, timeout=TIMEOUT_S)).link
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable("unavailable", "Too many links are being made.", retry_after_s=1)
        parent = current_traceparent()
        current = begin_span(_SPAN, SpanKind.CLIENT, parent=parent, attributes=_ATTRIBUTES)
        traceparent = parent if current is None else traceparent_of(current)
        try:
            return await self._enqueue(request, traceparent or "")
        except ServiceError as exc:
            if current is not None:
                _describe(current, exc)
            raise
        finally:
            if current is not None:
                current.end()

    def _enqueue(self, request: pb.CreateLinkRequest, traceparent: str) -> "asyncio.Future[link_pb2.Link]":
        deadline = self._clock.monotonic() + TIMEOUT_S
        create = _Create(request, traceparent, deadline, self._loop.create_future())
        self._waiting.append(create)
        self._unanswered.append(create)
        if self._timer is None:
            self._timer = self._loop.call_later(TIMEOUT_S, self._expire)
        self._flush_soon()
        return create.answer

    def _flush_soon(self) -> None:
        """Behind everything that is ready to run in this turn of the loop, which may be further creates."""
        if self._waiting and self._calls < _CALLS_MAX and not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._waiting and self._calls < _CALLS_MAX:
            if batch := self._take():
                self._calls += 1
                self._tasks.create_task(self._call(batch), name="create links")

    def _take(self) -> list[_Create]:
        """The oldest creates that somebody still waits for, as many as a call carries."""
        batch: list[_Create] = []
        size = 0
        while self._waiting and len(batch) < _BATCH_MAX:
            create = self._waiting[0]
            if not create.answer.done():
                size += create.request.ByteSize()
                if batch and size > _BATCH_BYTES_MAX:
                    break
                create.sent = True
                batch.append(create)
            self._waiting.popleft()
        return batch

    async def _call(self, batch: Sequence[_Create]) -> None:
        now = self._clock.monotonic()
        failure: ServiceError = Unavailable("outcome_unknown", "The answer was given up.", retry_after_s=1)
        results: Sequence[pb.BatchedCreateLinkResult] = ()
        request = pb.BatchCreateLinksRequest(items=[_item(create, now) for create in batch])
        try:
            with start_trace("BatchCreateLinks", keep_ratio=0.0):  # each create has a span in its own trace
                response = await self._links.BatchCreateLinks(request, timeout=max(0.001, batch[-1].deadline - now))
            results = response.results
            failure = Internal("internal", "link_service sent too few results.")
        except ServiceError as exc:
            failure = exc
        except Exception:
            logger.exception("a batch of creates failed")  # told to each as ours; the other batches go on
            failure = Internal("internal", "Something went wrong on our side.")
        finally:
            self._calls -= 1
            for place, create in enumerate(batch):
                _answer(create, results[place] if place < len(results) else None, failure)
            while self._unanswered and self._unanswered[0].answer.done():
                self._unanswered.popleft()
            self._flush_soon()

    def _expire(self) -> None:
        """Ends the waiting of those whose time is over, and sleeps until the next one's."""
        self._timer = None
        now = self._clock.monotonic()
        while self._unanswered and (self._unanswered[0].answer.done() or self._unanswered[0].deadline <= now):
            create = self._unanswered.popleft()
            if not create.answer.done():
                create.answer.set_exception(_late(create))
        if self._unanswered:
            self._timer = self._loop.call_later(self._unanswered[0].deadline - now, self._expire)


def _item(create: _Create, now: float) -> pb.BatchedCreateLink:
    left_ms = max(1, ceil((create.deadline - now) * 1000))
    left = Duration(seconds=left_ms // 1000, nanos=left_ms % 1000 * 1_000_000)
    return pb.BatchedCreateLink(request=create.request, traceparent=create.traceparent, time_left=left)


def _answer(create: _Create, result: pb.BatchedCreateLinkResult | None, failure: ServiceError) -> None:
    if create.answer.done():
        return  # nobody waits for it any more
    if result is None:
        create.answer.set_exception(failure.again())
    elif result.HasField("link"):
        create.answer.set_result(result.link)
    else:
        create.answer.set_exception(error_of(result.problem))


def _late(create: _Create) -> ServiceError:
    if create.sent:
        return DeadlineExceeded("deadline_exceeded", "A process did not answer in time.")
    return Unavailable("unavailable", "Too many links are being made.", retry_after_s=1)


def _describe(current: Span, error: ServiceError) -> None:
    current.set_attribute("rpc.response.status_code", error.status.name)
    current.set_attribute("error.type", error.reason)
