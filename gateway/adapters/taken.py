"""What stands for a request that was taken off the wire and is not answered yet, and how an app gets it after all.

uvicorn's own state of a request, and its scope, cost as much as a look-up; most requests that are taken never need
them.
"""

import asyncio
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from chassis.http_server import Scope
from gateway.adapters.http_protocol import LimitedHttpProtocol


class Request(NamedTuple):
    """What came off the wire: HTTP/1.1, and whole. `url` is the target as it came, `headers` have lower-case names,
    `peer` is the address it came from, empty if unknown."""

    method: str
    url: bytes
    headers: Sequence[tuple[bytes, bytes]]
    peer: str


class _Nobody:
    """Who waits for what becomes of a request that has no task."""

    def set(self) -> None:
        """Nothing happens."""


class Taken:
    """What uvicorn must know of a request that is under way, in the place of its own state of it."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    message_event: ClassVar = _Nobody()

    def __init__(self) -> None:
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False


def scope_of(connection: LimitedHttpProtocol, request: Request) -> Scope:
    """The scope of a request as uvicorn would have made it; its target is a path of plain letters, and perhaps a
    query."""
    path, _, query = request.url.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
        "http_version": "1.1",
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": connection.root_path,
        "headers": request.headers,
        "state": connection.app_state.copy(),
        "method": request.method,
        "path": path.decode("ascii"),
        "raw_path": path,
        "query_string": query,
    }


def cycle_of(connection: LimitedHttpProtocol, taken: Taken, scope: Scope) -> RequestResponseCycle:
    """uvicorn's state of a request that was taken, in the place of its stand-in from now on; an app may answer it."""
    cycle = RequestResponseCycle(
        scope=scope,  # type: ignore[arg-type]  # a TypedDict of the same keys
        transport=connection.transport,
        flow=connection.flow,
        logger=connection.logger,
        access_logger=connection.access_logger,
        access_log=False,
        default_headers=connection.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=taken.keep_alive,
        on_response=connection.on_response_complete,
    )
    cycle.disconnected = taken.disconnected
    cycle.more_body = False
    cycle.message_event.set()
    if connection.cycle is cast("RequestResponseCycle", taken):
        connection.cycle = cycle
    return cycle
