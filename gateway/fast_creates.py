"""Plain creates without ASGI: a request that came in one piece and waits for nothing but link_service needs no task.

The contract. Of what gateway.fastpath hands over, that is taken which is plain as gateway.handlers.creating says,
without idempotency key and chosen code, and whose key was verified within the last second. Everything else goes on to
the ASGI app as if this did not exist. What is taken is answered to the byte as the app would, is counted alike, and is
a request like any other: what comes behind it on the connection waits for its answer, a shutdown does too, and who
hangs up undoes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.telemetry import trace_id_of, unkept_traceparent
from gateway.handlers.answers import INTERNAL, Answer, problem_answer, problem_of
from gateway.handlers.bodies import BODY_BYTES_MAX
from gateway.handlers.creating import PATH, Creates, Headers
from gateway.handlers.front import Front
from shortener.link.v1 import link_pb2

_METHOD = "POST"
Tell = Callable[[Answer], None]
logger = logging.getLogger(__name__)


class FastCreates:
    """Begins creates off the wire and answers them when they are made."""

    def __init__(self, creates: Creates, front: Front, *, clock: Clock) -> None:
        self._creates = creates
        self._front = front
        self._clock = clock

    def begin(self, headers: Headers, body: bytes, tell: Tell) -> bool:
        """Takes a request whose trace is not kept, and tells its answer, perhaps at once; False: nothing was done, and
        the app shall answer it."""
        if len(body) > BODY_BYTES_MAX:
            return False
        began, traceparent = self._clock.monotonic(), unkept_traceparent()
        trace_id = trace_id_of(traceparent)
        try:
            made = self._creates.begin(headers, body, traceparent)
        except ServiceError as exc:
            self._answer(tell, problem_answer(problem_of(exc), trace_id), began)
            return True
        except Exception:
            logger.exception("a create failed")
            self._answer(tell, problem_answer(INTERNAL, trace_id), began)
            return True
        if made is None:
            return False
        made.add_done_callback(partial(self._end, tell, trace_id, began))
        return True

    def _end(self, tell: Tell, trace_id: str, began: float, made: "asyncio.Future[link_pb2.Link]") -> None:
        try:
            answer = self._creates.end(made, trace_id)
        except Exception:
            logger.exception("a create failed")
            answer = problem_answer(INTERNAL, trace_id)
        self._answer(tell, answer, began)

    def _answer(self, tell: Tell, answer: Answer, began: float) -> None:
        tell(answer)
        self._front.observe(_METHOD, PATH, answer.status, self._clock.monotonic() - began)
