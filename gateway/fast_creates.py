"""Plain creates without ASGI: a request that came in one piece and waits for nothing but link_service needs no task.

The contract. Of what gateway.fastpath hands over, that is taken whose trace is not kept; which is plain as
gateway.handlers.creating says, without idempotency key and chosen code; and whose key was verified within the last
second. Everything else goes on to the ASGI app as if this did not exist. What is taken is answered to the byte as the
app would, is counted alike, and is a request like any other to uvicorn: what comes behind it on the connection waits
for its answer, a shutdown does too, and who hangs up undoes nothing.
"""

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.http_server import Receive, Scope, Send
from chassis.telemetry import trace_id_of, unkept_traceparent
from gateway.handlers.answers import INTERNAL, Answer, problem_answer, problem_of, send_answer
from gateway.handlers.bodies import BODY_BYTES_MAX
from gateway.handlers.creating import PATH, Creates
from gateway.handlers.front import Front
from gateway.ports import KEPT, SHORTCUTS, Shortcuts
from shortener.link.v1 import link_pb2

if TYPE_CHECKING:  # uvicorn's own module of types
    from uvicorn._types import ASGI3Application

_METHOD = "POST"
logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What a request came by."""

    def start(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        """Lets an ASGI app answer a request."""


class FastCreates:
    """Begins creates off the wire and answers them when they are made."""

    def __init__(self, creates: Creates, front: Front, *, keep_ratio: float, clock: Clock) -> None:
        self._creates = creates
        self._front = front
        self._keep_ratio = keep_ratio
        self._clock = clock

    def begin(self, protocol: Connection, cycle: RequestResponseCycle) -> bool:
        """Takes a request whose body is there; False: nothing was done, and the app shall answer it."""
        scope = cast("Scope", cycle.scope)
        if len(cycle.body) > BODY_BYTES_MAX:
            return False
        if self._keep_ratio:
            scope[KEPT] = random.random() < self._keep_ratio  # noqa: S311 (chance, no secret)
            if scope[KEPT]:
                return False
        began, traceparent = self._clock.monotonic(), unkept_traceparent()
        trace_id = trace_id_of(traceparent)
        try:
            made = self._creates.begin(scope["headers"], bytes(cycle.body), traceparent)
        except ServiceError as exc:
            self._answer(protocol, cycle, problem_answer(problem_of(exc), trace_id), began)
            return True
        except Exception:
            logger.exception("a create failed")
            self._answer(protocol, cycle, problem_answer(INTERNAL, trace_id), began)
            return True
        if made is None:
            return False
        made.add_done_callback(partial(self._end, protocol, cycle, trace_id, began))
        return True

    def _end(
        self,
        protocol: Connection,
        cycle: RequestResponseCycle,
        trace_id: str,
        began: float,
        made: "asyncio.Future[link_pb2.Link]",
    ) -> None:
        try:
            answer = self._creates.end(made, trace_id)
        except Exception:
            logger.exception("a create failed")
            answer = problem_answer(INTERNAL, trace_id)
        self._answer(protocol, cycle, answer, began)

    def _answer(self, protocol: Connection, cycle: RequestResponseCycle, answer: Answer, began: float) -> None:
        shortcuts: Shortcuts = cast("Scope", cycle.scope).pop(SHORTCUTS)  # a ring, which nobody needs any more
        if not cycle.disconnected and not shortcuts.answer(answer.status, answer.headers, answer.body):
            protocol.start(cycle, _ready(answer))  # the connection ends, or does not take it just now
        self._front.observe(_METHOD, PATH, answer.status, self._clock.monotonic() - began)


def _ready(answer: Answer) -> "ASGI3Application":
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(send, answer)

    return cast("ASGI3Application", app)
