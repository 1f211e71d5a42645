"""New links, from link_service: creates that wait at the same time travel as one call, and know nothing of each other.

A call between processes costs a millisecond of CPU in the two and their Redis, whatever it carries. So creates of one
turn of the loop share one, and while a call is under way the next ones collect; a second call begins when there is a
crowd, or when the first one takes long. Each keeps its own deadline, its own trace and its own outcome; who gives up
takes nobody along. None is sent twice [R1].

A chosen code and an idempotency key mean several steps, some at the database. Such a create goes by itself: in a batch
the others would wait for it.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
_CALLS_MAX = 2  # under way
_CROWD = 64  # that does not wait for the call under way: two calls of this size cost little more than one of twice
_GATHER_S = 0.002  # behind an answer to several: clients that were answered together come again together, and are
_GATHER_MAX_S = 0.01  # waited for as long as none is 2 ms behind the one before
_SEVERAL = 4
_GRAIN_S = 0.0005  # what is not worth a timer
_PATIENCE_S = 0.02  # with a call under way, several times what one takes; a process that hangs must not hold up others
_PATIENCE_MAX_S = 0.1  # on a machine so busy that calls take longer: two halves cost it twice as much as a whole
_TIMES = 2  # what a call took lately
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
        self._called_at = 0.0  # when the last call began
        self._flush_is_due = False
        self._later: asyncio.TimerHandle | None = None
        self._answered = 0  # creates of the last call that was answered
        self._answered_at = -1.0
        self._came_at = 0.0  # the last create
        self._took_s = 0.0  # the last call that was answered with results

    async def create(self, request: pb.CreateLinkRequest) -> link_pb2.Link:
        """The link as stored.

        Raises:
            ServiceError: link_service's own; too many wait; or no answer within two seconds, after which the link may
                have been made (DeadlineExceeded, and what `may_have_happened` says of it).
        """
        if request.request_id or request.custom_code:
            return (await self._links.CreateLink(request, timeout=TIMEOUT_S)).link
        parent = current_traceparent()
        current = begin_span(_SPAN, SpanKind.CLIENT, parent=parent, attributes=_ATTRIBUTES)
        traceparent = parent if current is None else traceparent_of(current)
        try:
            return await self.begin(request, traceparent or "")
        except ServiceError as exc:
            if current is not None:
                _describe(current, exc)
            raise
        finally:
            if current is not None:
                current.end()

    def begin(self, request: pb.CreateLinkRequest, traceparent: str) -> "asyncio.Future[link_pb2.Link]":
        """The same without waiting, of a create that goes with others, as part of a trace that is not told here.

        Raises:
            Unavailable: too many wait; nothing was begun.
        """
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable("unavailable", "Too many links are being made.", retry_after_s=1)
        self._came_at = self._clock.monotonic()
        create = _Create(request, traceparent, self._came_at + TIMEOUT_S, self._loop.create_future())
        self._waiting.append(create)
        self._unanswered.append(create)
        if self._timer is None:
            self._timer = self._loop.call_later(TIMEOUT_S, self._expire)
        self._flush_soon()
        return create.answer

    def _flush_soon(self) -> None:
        """Behind everything that is ready to run in this turn of the loop, which may be further creates."""
        if self._flush_is_due or not self._waiting:
            return
        wait_s = self._wait_s()
        if wait_s == 0:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        elif self._calls < _CALLS_MAX and self._later is None:
            self._later = self._loop.call_later(wait_s, self._flush_later)

    def _wait_s(self) -> float:
        """How long those who wait have still to wait, for others to come or for a call under way; 0: no longer."""
        waiting = len(self._waiting)
        if self._calls == 0:
            until = self._gathered_at() if self._answered >= max(_SEVERAL, waiting + 1) else 0.0
        elif self._calls < _CALLS_MAX:
            patience_s = min(max(_PATIENCE_S, _TIMES * self._took_s), _PATIENCE_MAX_S)
            until = self._called_at + patience_s if waiting < _CROWD else 0.0
        else:
            until = math.inf
        left_s = until - self._clock.monotonic()
        return left_s if left_s > _GRAIN_S else 0.0

    def _gathered_at(self) -> float:
        """When those who were answered together and come again are together."""
        return min(max(self._answered_at, self._came_at) + _GATHER_S, self._answered_at + _GATHER_MAX_S)

    def _flush_later(self) -> None:
        self._later = None
        self._flush_soon()

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._waiting and self._wait_s() == 0:
            if batch := self._take():
                self._calls += 1
                self._called_at = self._clock.monotonic()
                self._tasks.create_task(self._call(batch), name="create links")
        self._flush_soon()

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
        failure: ServiceError = _lost()
        results: Sequence[pb.BatchedCreateLinkResult] = ()
        request = pb.BatchCreateLinksRequest()
        for create in batch:
            _add(request, create, now)
        try:
            with start_trace("BatchCreateLinks", keep_ratio=0.0):  # each create has a span in its own trace
                response = await self._links.BatchCreateLinks(request, timeout=max(0.001, batch[-1].deadline - now))
            results = response.results
            self._took_s = self._clock.monotonic() - now
            failure = _lost()  # only of what has no result
        except ServiceError as exc:
            failure = exc
        except Exception:
            logger.exception("a batch of creates failed")  # told to each as ours; the other batches go on
            failure = Internal("internal", "Something went wrong on our side.")
        finally:
            self._calls -= 1
            self._answered, self._answered_at = len(batch), self._clock.monotonic()
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


def _add(batch: pb.BatchCreateLinksRequest, create: _Create, now: float) -> None:
    left_ms = max(1, math.ceil((create.deadline - now) * 1000))
    item = batch.items.add(request=create.request, traceparent=create.traceparent)  # one copy; a list is two
    item.time_left.seconds, item.time_left.nanos = left_ms // 1000, left_ms % 1000 * 1_000_000


def _answer(create: _Create, result: pb.BatchedCreateLinkResult | None, failure: ServiceError) -> None:
    if create.answer.done():
        return  # nobody waits for it any more
    if result is None:
        create.answer.set_exception(failure.again())
    elif result.HasField("link"):
        create.answer.set_result(result.link)
    else:
        create.answer.set_exception(error_of(result.problem))


def _lost() -> Unavailable:
    return Unavailable("outcome_unknown", "The answer got lost; look before you repeat.", retry_after_s=1)


def _late(create: _Create) -> ServiceError:
    if create.sent:
        return DeadlineExceeded("deadline_exceeded", "A process did not answer in time.")
    return Unavailable("unavailable", "Too many links are being made.", retry_after_s=1)


def _describe(current: Span, error: ServiceError) -> None:
    current.set_attribute("rpc.response.status_code", error.status.name)
    current.set_attribute("error.type", error.reason)
