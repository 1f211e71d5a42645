"""An ASGI app as a component of a process, and the admin app that every process has."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chassis.health import Readiness

Scope = MutableMapping[str, Any]  # ASGI 3 defines these three as open mappings
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)
_NOTICE_S = 0.5  # between "not ready" and the closing of the listener, so that a balancer looks away first


class HttpServer:
    """A component: serves an ASGI app until stop, then lets requests in flight finish. `port` is known once it runs."""

    def __init__(
        self,
        app: App,
        *,
        host: str,
        port: int,
        drain_s: float = 10.0,
        notice_s: float = 0.0,
        protocol: type[asyncio.Protocol] | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        """`protocol` reads HTTP instead of uvicorn's own choice; `readiness` is told when the port is open."""
        self._host = host
        self._port = port
        self._notice_s = notice_s
        self._is_listening = readiness.declare("http") if readiness else None
        self._config = uvicorn.Config(
            app,
            http=protocol or "auto",
            ws="none",  # nobody upgrades here
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,  # it would believe X-Forwarded-For of anything on loopback; the app knows its proxies
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=int(drain_s),
            h11_max_incomplete_event_size=16 << 10,  # our limit of a header block
        )
        self.port = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until stop is set.

        Raises:
            OSError: the port is taken.
        """
        server = _Server(self._config)
        with _listen(self._host, self._port) as listener:
            self.port = listener.getsockname()[1]
            if self._is_listening:
                self._is_listening(met=True)
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(server.serve(sockets=[listener]))
                await asyncio.wait(
                    [serving, tasks.create_task(stop.wait(), name="stop")], return_when=asyncio.FIRST_COMPLETED
                )
                if serving.done():
                    raise RuntimeError("the HTTP server ended by itself")
                await asyncio.sleep(self._notice_s)
                server.should_exit = True


class AdminServer(HttpServer):
    """/livez, /readyz and /metrics of a process."""

    def __init__(self, readiness: Readiness, *, host: str, port: int) -> None:
        super().__init__(_admin_app(readiness), host=host, port=port, drain_s=1, notice_s=_NOTICE_S)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business (chassis.lifecycle)."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)  # noqa: FBT003 (a socket's own signature)
    except OSError:
        listener.close()
        raise
    return listener


def _admin_app(readiness: Readiness) -> App:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = 404, "text/plain; charset=utf-8", b"not found\n"
        match scope["path"]:
            case "/livez":
                status, body = 200, b"alive\n"
            case "/readyz":
                status, kind = (200 if readiness.ready else 503), "application/json"
                body = json.dumps({"ready": readiness.ready, "reasons": readiness.reasons}).encode()
            case "/metrics":
                status, kind, body = 200, CONTENT_TYPE_LATEST, generate_latest()
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
