"""What is answered off the wire, without ASGI: redirects that are ready, those to be looked up, and plain creates.

The contract. A request is taken only if it came by HTTP/1.1 on a connection that is kept (no `Connection: close`, no
upgrade), behind no unanswered request. Of these

- GET and HEAD of a path that is ready (`ReadyRedirects.get` of the target as it came, or of what stands before its `?`)
  if the client reads what it is sent and the request's trace is not kept: the click is recorded, then the answer is
  written, all within the parser's callback. A body is read and thrown away, as behind the app's answer.
- Another GET or HEAD of a path that can be a code, without `Expect`, that is whole in one read from the socket: it goes
  to gateway.fast_lookups, which says which of them it takes.
- `POST /api/links` without `Expect`, whose headers end and whose body ends in one read from the socket: it goes to
  gateway.fast_creates, which says what else it takes.

Everything else goes on to the ASGI app as if this did not exist. What is taken is answered to the byte as the app
would, recorded and counted alike; tests/integration/gateway asks both ways and compares.
"""

import asyncio
import logging
import re
from dataclasses import dataclass
from functools import partial
from random import random
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from chassis.http_server import Receive, Scope, Send
from gateway.adapters.http_protocol import ANSWERED, IDLE, UNKNOWN, LimitedHttpProtocol
from gateway.adapters.taken import Request, Taken, cycle_of, scope_of
from gateway.fast_creates import FastCreates
from gateway.fast_lookups import FastLookups
from gateway.handlers.answers import Answer, send_answer
from gateway.handlers.creating import PATH
from gateway.handlers.lookups import Told
from gateway.handlers.metrics import QUICK_S, observe_slow, tallies_of
from gateway.ports import KEPT, LOOKED, ClickRecorder, ReadyRedirects

if TYPE_CHECKING:  # uvicorn's own module of types
    from uvicorn._types import ASGI3Application

_TARGET = PATH.encode()
_READS = {b"GET": ("GET", tallies_of("GET")), b"HEAD": ("HEAD", tallies_of("HEAD"))}
_CODE = re.compile(rb"/[0-9A-Za-z_-]{3,64}(?:\?[!\"$-~]*)?")  # in a target that means the same to everybody
_HELD = -1  # a stage of a connection: the rest of a request is being read that may not need the app
_LAST_DIGIT = len("HTTP/1.1 30")  # of the status, in an answer
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FastRedirects:
    """What redirects need that are answered off the wire. `keep_ratio`: the share of traces that is kept, 0 … 1."""

    ready: ReadyRedirects
    recorder: ClickRecorder
    keep_ratio: float


class FastHttpProtocol(LimitedHttpProtocol):
    """One connection."""

    creates: ClassVar[FastCreates]
    lookups: ClassVar[FastLookups | None] = None
    redirects: ClassVar[FastRedirects]
    _held_body = b""
    _paused = False  # the client does not read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Somebody is there."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        self._ready = self.redirects.ready.get  # looked up once a connection
        self._record = self.redirects.recorder.record
        self._keep_ratio = self.redirects.keep_ratio

    def pause_writing(self) -> None:
        """The client does not read what it is sent."""
        self._paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        super().resume_writing()

    def on_headers_complete(self) -> None:
        """The request can be answered: a redirect at once, a create after a look at its body, all else by the app."""
        began = monotonic()
        url, cycle, line_end = self.url, self.cycle, self.line_end
        self.line_end = UNKNOWN  # of what follows
        free = cycle is None or cycle.response_complete
        ready = self._ready(url)
        if ready is None and b"?" in url:
            ready = self._ready(url.partition(b"?")[0])
        if ready is None or not free or self._paused:
            if free and self._is_plain():
                self._hold()
            else:
                super().on_headers_complete()
            return
        parser = self.parser
        method = parser.get_method()
        reads = _READS.get(method)
        if (
            reads is None
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or (line_end != len(method) + 1 + len(url) and not self._is_sound())
        ):
            super().on_headers_complete()
            return
        if self._keep_ratio and random() < self._keep_ratio:  # noqa: S311 (chance, no secret)
            super().on_headers_complete()
            cast("dict[str, object]", self.scope)[KEPT] = True
            return
        word, tallies = reads
        self.stage = ANSWERED
        try:
            self._record(ready.target, word, self.headers, self._peer, None)
        except Exception:
            logger.exception("a click could not be recorded")
            super().on_headers_complete()  # fails alike, and says so
            return
        self.transport.write(ready.answer)
        self.answered_at = now = monotonic()
        if self.idle_timer is None:
            self.wait_idle(now)
        tally = tallies[ready.answer[_LAST_DIGIT]]
        spent_s = now - began
        if spent_s <= QUICK_S:
            tally.count += 1
            tally.seconds += spent_s
        else:
            observe_slow(word, int(ready.answer[_LAST_DIGIT - 2 : _LAST_DIGIT + 1]), spent_s)

    def _is_sound(self) -> bool:
        """Whether what came in pieces, or behind another request, is HTTP/1.1; if it is too much, this ends it."""
        self.check_headers()
        return self.parser.get_http_version() == "1.1"

    # ------------------------------------------------------------ what has to wait

    def _is_plain(self) -> bool:
        """Whether somebody else than the app may take it."""
        parser = self.parser
        method = parser.get_method()
        if self.url == _TARGET:
            if method != b"POST":
                return False
        elif method not in _READS or self.lookups is None or _CODE.fullmatch(self.url) is None:
            return False
        for name, _ in self.headers:
            if name == b"expect":
                return False
        return parser.get_http_version() == "1.1" and parser.should_keep_alive() and not parser.should_upgrade()

    def on_unfinished(self) -> None:
        """The read ended within a request: what is not whole by then is the app's."""
        if self.stage == _HELD:
            self._let_go()
        super().on_unfinished()

    def on_message_complete(self) -> None:
        """All of the request is there."""
        if self.stage == ANSWERED:
            self.stage = IDLE
            return
        if self.stage == _HELD:
            if self._begin():
                self.stage = IDLE
                return
            self._let_go()
        super().on_message_complete()

    def _hold(self) -> None:
        """Waits for the rest; the scope and uvicorn's state of a request are only made for the app."""
        if self._keep_ratio and random() < self._keep_ratio:  # noqa: S311 (chance, no secret)
            super().on_headers_complete()
            cast("dict[str, object]", self.scope)[KEPT] = True
            return
        if self._late_bytes:
            self.check_headers()
        self.stage, self._held_body = _HELD, b""
        self._held_headers, self.headers = self.headers, []  # for trailers

    def _let_go(self) -> None:
        """The app shall answer what was held."""
        self.headers = self._held_headers
        super().on_headers_complete()
        if self._keep_ratio:
            cast("dict[str, object]", self.scope)[KEPT] = False
        if self._held_body:
            super().on_body(self._held_body)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self.stage == _HELD:
            self.line_end = UNKNOWN
            self._held_body += body
        else:
            super().on_body(body)

    def _begin(self) -> bool:
        before, taken, url = self.cycle, Taken(), self.url
        self.cycle = cast("RequestResponseCycle", taken)
        if url == _TARGET:
            begun = self.creates.begin(self._held_headers, self._held_body, partial(self._tell, taken))
        else:
            word, _ = _READS[self.parser.get_method()]
            begun = self.lookups is not None and self.lookups.begin(
                self, taken, Request(word, url, self._held_headers, self._peer)
            )
        if not begun:
            self.cycle = before
        return begun

    # ------------------------------------------------------------ what was taken

    def takes_answer(self, taken: Taken) -> bool:
        """Whether the answer can be written as it is at this moment."""
        return taken.keep_alive and not (taken.disconnected or self._paused or self.transport.is_closing())

    def write_answer(self, taken: Taken, data: bytes) -> None:
        """Answers a request, all in one write, on a connection that is kept and takes it."""
        self.transport.write(data)
        taken.response_complete = True
        if self.pipeline or self.backlog:
            self.on_response_complete()
        else:
            self.wait_idle(monotonic())

    def pass_on(self, taken: Taken, request: Request, told: Told) -> None:
        """Lets the app answer, with what came of the look-up."""
        scope = scope_of(self, request)
        scope[LOOKED] = told
        if self._keep_ratio:
            scope[KEPT] = False
        self._start_asgi_task(cycle_of(self, taken, scope), self.app)

    def _tell(self, taken: Taken, answer: Answer) -> None:
        """Answers a create: head and body in one write, on a connection that is kept and takes it."""
        if taken.disconnected or self.transport.is_closing():
            return
        if not taken.keep_alive or self._paused:
            # The connection ends with this answer, or does not take it just now.
            cycle = cycle_of(self, taken, {"type": "http", "method": "POST"})  # all that an answer looks at
            super()._start_asgi_task(cycle, _ready(answer))
            return
        head = b"".join([b"%b: %b\r\n" % item for item in answer.headers])
        self.write_answer(taken, b"%b%b\r\n%b" % (STATUS_LINE[answer.status], head, answer.body))


def fast_protocol(
    creates: FastCreates, redirects: FastRedirects, lookups: FastLookups | None = None
) -> type[FastHttpProtocol]:
    """The protocol for a server. Without `lookups` all that have to wait for a link go to the app."""
    takers = {"creates": creates, "lookups": lookups, "redirects": redirects}
    return type("GatewayHttpProtocol", (FastHttpProtocol,), takers)


def _ready(answer: Answer) -> "ASGI3Application":
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(send, answer)

    return cast("ASGI3Application", app)
