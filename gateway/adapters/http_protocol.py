"""HTTP off the wire, with the limits that uvicorn's fast parser does not have.

A header block of more than 16 KiB is 431, one that has not arrived after ten seconds ends the connection, and what is
no HTTP is 400; all in the form of our errors.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from contracts.reasons import Reason
from gateway.domain.problems import MEDIA_TYPE, Problem, body_of
from gateway.ports import SHORTCUTS

HEADER_BYTES_MAX = 16 << 10
_LINE_BYTES = 4  # ": " and the end of a line
_PHRASES = {400: "Bad Request", 431: "Request Header Fields Too Large"}


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


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    headers_timeout_s = 10.0  # a header block that takes longer is there to hold the connection
    _in_headers = False
    _header_bytes = 0  # as parsed, exact
    _raw_bytes = 0  # as received, for a header that never ends and is therefore never parsed
    _timer: asyncio.TimerHandle | None = None
    _reason = Reason.MALFORMED_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Somebody is there; the first headers must follow."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser."""
        continued = self._in_headers
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_headers:
            self._stop_waiting()
            return
        self._raw_bytes = self._raw_bytes + len(data) if continued else 0
        if self._raw_bytes > HEADER_BYTES_MAX:
            self._refuse(Reason.HEADERS_TOO_LARGE)
        elif self._timer is None:
            self._wait_for_headers()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which only counts: it says neither who asks nor where from, no proxy looked at it.
        The parent's own method again, since a call costs as much as all of it."""
        self._header_bytes += len(name) + len(value) + _LINE_BYTES
        if self._header_bytes > HEADER_BYTES_MAX:
            self._count(0)
        if not self._in_headers:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The request can be answered."""
        self._in_headers = False
        super().on_headers_complete()
        cast("dict[str, object]", self.scope)[SHORTCUTS] = _CycleShortcuts(self.cycle)  # ASGI allows keys of one's own

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser, or one of the methods above, gave up."""
        self._refuse(self._reason, msg)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES_MAX:
            self._reason = Reason.HEADERS_TOO_LARGE
            raise ValueError("the header block is too large")  # ends the parser, which leads to send_400_response

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
        self._timer = self.loop.call_later(self.headers_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
