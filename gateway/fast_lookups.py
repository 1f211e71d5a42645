"""Redirects without ASGI whose link has to be looked up: a request that waits for Redis alone needs no task.

The contract. Of what gateway.fastpath hands over (GET or HEAD by HTTP/1.1 on a connection that is kept, behind no
unanswered request, whole in one read), that is taken whose trace is not kept and whose path can be a code. Like any
request to uvicorn it has a cycle: what comes behind it on the connection waits, a shutdown does too, and who hangs up
undoes nothing. If the link redirects, the click is recorded and the answer written when it is known; whatever else came
of the look-up goes to the ASGI app in the request's scope, which answers as ever, without looking again.
"""

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.http_server import Scope
from contracts.link import link_key
from gateway.domain.redirects import code_of_path
from gateway.handlers.front import Front
from gateway.handlers.lookups import Looked
from gateway.handlers.metrics import CODE_ROUTE
from gateway.handlers.redirects import Redirects
from gateway.ports import KEPT, LOOKED, SHORTCUTS, ReadyRedirect

if TYPE_CHECKING:  # uvicorn's own module of types
    from uvicorn._types import ASGI3Application

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What a request came by."""

    app: "ASGI3Application"

    def start(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        """Lets an ASGI app answer a request."""


class _Asked(NamedTuple):
    """A request under way."""

    connection: Connection
    cycle: RequestResponseCycle
    scope: Scope
    began: float


class FastLookups:
    """Begins look-ups off the wire and answers them when they are done. `keep_ratio`: the share of traces that is
    kept, 0 … 1."""

    def __init__(self, redirects: Redirects, front: Front, *, keep_ratio: float, clock: Clock) -> None:
        self._redirects = redirects
        self._front = front
        self._keep_ratio = keep_ratio
        self._clock = clock

    def begin(self, connection: Connection, cycle: RequestResponseCycle) -> bool:
        """Takes a request that is whole; False: nothing was done, and the app shall answer it."""
        scope = cast("Scope", cycle.scope)
        code = code_of_path(scope["path"])
        if code is None:
            return False
        if self._keep_ratio:
            scope[KEPT] = random.random() < self._keep_ratio  # noqa: S311 (chance, no secret)
            if scope[KEPT]:
                return False
        asked = _Asked(connection, cycle, scope, self._clock.monotonic())
        try:
            looked = self._redirects.begin(scope, link_key(code), partial(self._end, asked))
        except ServiceError as exc:
            self._end(asked, exc)
            return True
        except Exception:
            logger.exception("a look-up could not be begun")
            return False
        if looked is not None:
            self._end(asked, looked)
        return True

    def _end(self, asked: _Asked, told: Looked | ServiceError) -> None:
        cycle, scope = asked.cycle, asked.scope
        ready = None if isinstance(told, ServiceError) else told.ready
        plain = not (cycle.disconnected or cycle.flow.write_paused) and cycle.keep_alive
        if ready is None or not plain or not self._record(ready, scope):
            scope[LOOKED] = told
            asked.connection.start(cycle, asked.connection.app)
            return
        answer = ready.answer
        scope.pop(SHORTCUTS, None)  # a ring, which nobody needs any more
        cycle.transport.write(answer)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        status = int(answer[9:12])  # HTTP/1.1 302
        self._front.observe(scope["method"], CODE_ROUTE, status, self._clock.monotonic() - asked.began)

    def _record(self, ready: ReadyRedirect, scope: Scope) -> bool:
        try:
            self._redirects.record(ready.target, scope)
        except Exception:
            logger.exception("a click could not be recorded")
            return False  # the app fails alike, and says so
        return True
