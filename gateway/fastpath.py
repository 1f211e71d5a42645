"""Plain creates that need no ASGI go past it: which ones can, as far as the connection is concerned.

Of a connection's requests only one is taken that is `POST /api/links` by HTTP/1.1 on a connection that is kept, behind
no unanswered request, without an upgrade or `Expect`, whose headers end and whose body ends in one read from the
socket. What else it takes stands in gateway.fast_creates. Everything else goes on to the ASGI app as if this did not
exist.
"""

from typing import TYPE_CHECKING, ClassVar

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.adapters.http_protocol import LimitedHttpProtocol
from gateway.fast_creates import FastCreates
from gateway.handlers.creating import PATH

if TYPE_CHECKING:  # uvicorn's own module of types
    from uvicorn._types import ASGI3Application

_TARGET = PATH.encode()


class FastHttpProtocol(LimitedHttpProtocol):
    """One connection, whose plain creates go to `creates`."""

    creates: ClassVar[FastCreates]
    _held = False  # the request that is being read has no task yet

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; what is not whole by then is the app's."""
        super().data_received(data)
        if self._held:
            self._held = False
            if not self.transport.is_closing():
                self.start(self.cycle, self.app)

    def on_headers_complete(self) -> None:
        """The request can be answered; a create after a look at its body."""
        parser = self.parser
        self._held = (
            self.url == _TARGET
            and parser.get_method() == b"POST"
            and (self.cycle is None or self.cycle.response_complete)
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
        )
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is there."""
        super().on_message_complete()
        if self._held:
            self._held = False
            if not self.creates.begin(self, self.cycle):
                self.start(self.cycle, self.app)

    def start(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        """Lets an ASGI app answer a request."""
        super()._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        """What uvicorn calls to do so."""
        if not self._held:
            self.start(cycle, app)


def fast_protocol(creates: FastCreates) -> type[FastHttpProtocol]:
    """The protocol for a server."""
    return type("CreatingHttpProtocol", (FastHttpProtocol,), {"creates": creates})
