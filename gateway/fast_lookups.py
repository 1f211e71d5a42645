"""Redirects without ASGI whose link has to be looked up: a request that waits for Redis alone needs no task.

The contract. Of what gateway.fastpath hands over, that is taken whose path can be a code. It is a request like any
other: what comes behind it on the connection waits, a shutdown does too, and who hangs up undoes nothing. If the link
redirects, the click is recorded and the answer written when it is known; whatever else came of the look-up goes to the
ASGI app, which answers as ever, without looking again.
"""

import logging
from functools import partial
from typing import Protocol

from chassis.clock import Clock
from chassis.errors import ServiceError
from contracts.link import link_key
from gateway.adapters.taken import Request, Taken
from gateway.domain.redirects import code_of_path
from gateway.handlers.front import Front
from gateway.handlers.lookups import Told
from gateway.handlers.redirects import Redirects
from gateway.ports import ReadyRedirect

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What a request came by."""

    def takes_answer(self, taken: Taken) -> bool:
        """Whether the answer can be written as it is at this moment."""

    def write_answer(self, taken: Taken, data: bytes) -> None:
        """Writes it."""

    def pass_on(self, taken: Taken, request: Request, told: Told) -> None:
        """Lets the app answer, with what came of the look-up."""


class FastLookups:
    """Begins look-ups off the wire and answers them when they are done."""

    def __init__(self, redirects: Redirects, front: Front, *, clock: Clock) -> None:
        self._redirects = redirects
        self._front = front
        self._clock = clock

    def begin(self, connection: Connection, taken: Taken, request: Request) -> bool:
        """Takes a request whose trace is not kept; False: nothing was done, and the app shall answer it."""
        code = code_of_path(request.url.partition(b"?")[0].decode("ascii"))
        if code is None:
            return False
        end = partial(self._end, connection, taken, request, self._clock.monotonic())
        try:
            told: Told | None = self._redirects.begin(link_key(code), request.headers, request.peer, end)
        except ServiceError as exc:
            told = exc
        except Exception:
            logger.exception("a look-up could not be begun")
            return False
        if told is not None:
            end(told)
        return True

    def _end(self, connection: Connection, taken: Taken, request: Request, began: float, told: Told) -> None:
        ready = None if isinstance(told, ServiceError) else told.ready
        if ready is None or not connection.takes_answer(taken) or not self._record(ready, request):
            connection.pass_on(taken, request, told)
            return
        answer = ready.answer
        connection.write_answer(taken, answer)
        self._front.observe_waited(request.method, answer, self._clock.monotonic() - began)

    def _record(self, ready: ReadyRedirect, request: Request) -> bool:
        try:
            self._redirects.record(ready.target, request.method, request.headers, request.peer)
        except Exception:
            logger.exception("a click could not be recorded")
            return False  # the app fails alike, and says so
        return True
