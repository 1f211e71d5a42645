"""HTTP off the wire, with the limits that uvicorn's fast parser does not have.

A header block of more than 16 KiB is 431, one that has not arrived after ten seconds ends the connection, and what is
no HTTP is 400; all in the form of our errors. A client that sends faster than it is answered waits: what lies behind an
unanswered request is parsed 16 KiB at a time. Nobody who has his answer holds a connection for longer than the
keep-alive time.

It costs little, since it stands in the way of every request: uvicorn's own callbacks are replaced where they do what
most requests do not need, above all the scope, which is made once it is known that the app is asked. The names of
uvicorn's that it relies on are no public ones; tests/unit/gateway/test_uvicorn.py knows them all.
"""

import asyncio
import json
from collections.abc import Sequence
from time import monotonic
from typing import cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from contracts.reasons import Reason
from gateway.domain.problems import MEDIA_TYPE, Problem, body_of
from gateway.ports import SHORTCUTS

HEADER_BYTES_MAX = 16 << 10
IDLE, IN_HEADERS, IN_BODY, ANSWERED = range(4)  # of a connection: between requests; in one; in one that needs no more
_LINE_BYTES = 4  # ": " and the end of a line
_PHRASES = {400: "Bad Request", 431: "Request Header Fields Too Large"}
_VERSION = b" HTTP/1.1\r\n"
UNKNOWN = -1


class _CycleShortcuts:
    """Shortcuts of one request, on uvicorn's state of it; both do what its `receive` and `send` would end in."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def whole_body(self) -> bytes | None:
        """The body, if it has arrived."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        return body

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Head and body in one write, on a connection that is kept and takes it."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or not cycle.keep_alive or cycle.flow.write_paused:
            return False
        head = b"".join([b"%b: %b\r\n" % item for item in headers])
        cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()
        return True


class _OneAtATime(FlowControl):
    """Does not read on while requests wait: uvicorn's own does with each answer, and what waits grows without end."""

    def __init__(self, protocol: "LimitedHttpProtocol") -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Reads on, if nothing waits."""
        if not self._protocol.pipeline and not self._protocol.backlog:
            super().resume_reading()


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    headers_timeout_s = 10.0  # a header block that takes longer is there to hold the connection
    stage = IDLE
    line_end = UNKNOWN  # where the line of the request ends that this read began with, if it is HTTP/1.1
    answered_at = 0.0  # when something was last known to be answered
    backlog = b""  # what was read behind unanswered requests
    _late_bytes = 0  # what came after the read that the message began in, or since the last piece of its body
    _headers_timer: asyncio.TimerHandle | None = None
    idle_timer: asyncio.TimerHandle | None = None
    _reason = Reason.MALFORMED_REQUEST

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Somebody is there; the first headers must follow."""
        super().connection_made(transport)
        self.flow = _OneAtATime(self)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop_waiting()
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None
        self.backlog = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; the parent's own method again, since calling it costs as much."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
            self.wait_idle(monotonic())  # should this be no request after all
        if len(data) > HEADER_BYTES_MAX or self.backlog:
            self._receive_much(data)
            return
        if self.stage == IDLE:
            self.line_end = data.find(_VERSION)
        else:
            self.line_end = UNKNOWN
            self._late_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.debug("Invalid HTTP request received.")  # a stranger must not fill the log
            self.send_400_response("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        if self.stage != IDLE:
            self.on_unfinished()
        elif self._headers_timer is not None and (self.idle_timer is not None or self.cycle is not None):
            self._stop_waiting()  # empty lines alone are no request

    def on_unfinished(self) -> None:
        """The read ended within a request."""
        if self.transport.is_closing():
            return
        if self._late_bytes > HEADER_BYTES_MAX:
            self._refuse(Reason.HEADERS_TOO_LARGE)
        elif self.stage != IN_HEADERS:
            self._stop_waiting()
        elif self._headers_timer is None or not self._late_bytes:  # what it was for is through, this is the next one
            self._stop_waiting()
            self._wait_for_headers()

    def on_response_complete(self) -> None:
        """What uvicorn calls when an answer is out: the next request waits already, or reading goes on."""
        super().on_response_complete()
        if self.backlog and not self.pipeline:
            self.loop.call_soon(self._go_on)  # this may be within the parser
        else:
            self.flow.resume_reading()

    # ------------------------------------------------------------ the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        self.stage = IN_HEADERS
        self.url = b""
        self.headers = []
        self._late_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which goes nowhere: it says neither who asks nor where from, no proxy looked at
        it."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The app shall answer."""
        self.stage = IN_BODY
        if self._late_bytes:
            self.check_headers()
        url, headers = self.url, self.headers
        super().on_message_begin()  # makes the scope, and begins anew
        self.url = url
        self.scope["headers"] = self.headers = headers
        for name, value in headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        super().on_headers_complete()
        self.headers = []  # for trailers
        cast("dict[str, object]", self.scope)[SHORTCUTS] = _CycleShortcuts(self.cycle)  # ASGI allows keys of one's own

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._late_bytes = 0
        self.line_end = UNKNOWN
        if self.stage != ANSWERED:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is there."""
        answered, self.stage = self.stage == ANSWERED, IDLE
        if not answered:
            super().on_message_complete()

    def check_headers(self) -> None:
        """Ends the connection if the header block of a request that came in several reads is too large.

        Raises:
            ValueError: it is. That ends the parser, which leads to send_400_response.
        """
        size = len(self.url) + sum(len(name) + len(value) + _LINE_BYTES for name, value in self.headers)
        if size > HEADER_BYTES_MAX:
            self._reason = Reason.HEADERS_TOO_LARGE
            raise ValueError("the header block is too large")

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser, or one of the methods above, gave up."""
        self._refuse(self._reason, msg)

    # ------------------------------------------------------------ limits

    def wait_idle(self, now: float) -> None:
        """From now on the keep-alive time runs, unless something is under way when it is over. One timer lives as long
        as the connection: one for each request would cost a tenth of a redirect."""
        self.answered_at = now
        if self.idle_timer is None:
            self.idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_idle)

    def _end_idle(self) -> None:
        self.idle_timer = None
        if self.stage == IN_HEADERS or self.timeout_keep_alive_task is not None:
            return  # there is another timer
        if self.cycle is not None and not self.cycle.response_complete:
            return  # its answer sets one
        left_s = self.answered_at + self.timeout_keep_alive - monotonic()
        if left_s > 0:
            self.idle_timer = self.loop.call_later(left_s, self._end_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    def _receive_much(self, data: bytes) -> None:
        """Feeds the parser until requests wait."""
        data, self.backlog = self.backlog + data, b""
        for start in range(0, len(data), HEADER_BYTES_MAX):
            if self.transport.is_closing():
                return
            if self.pipeline:
                self.backlog = data[start:]
                self.flow.pause_reading()
                return
            self.data_received(data[start : start + HEADER_BYTES_MAX])

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self._receive_much(b"")
            self.flow.resume_reading()

    def _refuse(self, reason: Reason, detail: str = "") -> None:
        self._stop_waiting()
        problem = Problem(reason, "" if reason is Reason.HEADERS_TOO_LARGE else detail)
        body = json.dumps(body_of(problem, "")).encode()
        head = (
            f"HTTP/1.1 {reason.http_status} {_PHRASES[reason.http_status]}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _wait_for_headers(self) -> None:
        self._headers_timer = self.loop.call_later(self.headers_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _give_up(self) -> None:
        self._headers_timer = None
        if not self.transport.is_closing():
            self.transport.close()
