"""The front door: one plain ASGI callable that sends each request to its place and tells of it afterwards.

Redirects and plain creates do not pass through FastAPI: it would cost more than all the rest of them. Every request
begins a trace of its own; a `traceparent` from the public is kept as a link, since a stranger must not choose our trace
ids.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from opentelemetry.trace import Span

from chassis.clock import Clock
from chassis.http_server import App, Receive, Scope, Send
from chassis.telemetry import current_trace_id, start_trace
from contracts.reasons import Reason
from gateway.domain.problems import Problem
from gateway.handlers.answers import INTERNAL, Answer, header, prefers_html, problem_answer, problem_page, send_answer
from gateway.handlers.bodies import BATCH_BYTES_MAX, BODY_BYTES_MAX, BodyRefused, read_body, replay
from gateway.handlers.metrics import CODE_ROUTE, DURATION, waited_of
from gateway.ports import KEPT

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_READS = ("GET", "HEAD")
_WAITED = {method: waited_of(method) for method in _READS}
_LAST_DIGIT = len("HTTP/1.1 30")  # of the status, in a redirect as it is on the wire
_LINKS = "/api/links"
_LINKS_BATCH = "/api/links:batch"
logger = logging.getLogger(__name__)

Handle = Callable[[Scope], Awaitable[Answer]]
Create = Callable[[Scope, bytes], Awaitable[Answer | None]]  # None: the API shall answer


class Front:
    """The app of the public port. `pages` are answers that never change, by path."""

    def __init__(
        self,
        *,
        redirect: Handle,
        create: Create,
        api: App,
        pages: dict[str, Answer],
        keep_ratio: float,
        clock: Clock,
    ) -> None:
        self._redirect = redirect
        self._create = create
        self._api = api
        self._pages = pages
        self._keep_ratio = keep_ratio
        self._clock = clock
        self._durations: dict[tuple[str, str, int], Callable[[float], None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        began = self._clock.monotonic()
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        path: str = scope["path"]
        links = [value] if (value := header(scope, b"traceparent")) else []
        ratio = float(scope[KEPT]) if KEPT in scope else self._keep_ratio
        with start_trace(method, keep_ratio=ratio, links=links) as span:
            if path.startswith("/api/") or path == "/openapi.json":
                route, status = await self._pass_to_api(scope, receive, send)
            else:
                route, answer = await self._answer(scope, method, path)
                status = answer.status
                await send_answer(send, answer, scope)
            if span.is_recording():
                _describe(span, method, route, status)
        self.observe(method, route, status, self._clock.monotonic() - began)

    async def _answer(self, scope: Scope, method: str, path: str) -> tuple[str, Answer]:
        """The answer to everything but the API, and the template of its path."""
        page = self._pages.get(path)
        route = path if page else CODE_ROUTE if path.count("/") == 1 else ""
        tell = problem_page if prefers_html(scope) else problem_answer
        if not route:
            return route, tell(Problem(Reason.NOT_FOUND), current_trace_id())
        if method not in _READS:
            return route, tell(Problem(Reason.METHOD_NOT_ALLOWED, allow=_READS), current_trace_id())
        if page:
            return route, page
        try:
            return route, await self._redirect(scope)
        except Exception:
            logger.exception("a redirect failed")
            return route, tell(INTERNAL, current_trace_id())

    async def _pass_to_api(self, scope: Scope, receive: Receive, send: Send) -> tuple[str, int]:
        """Lets the API answer; returns the template of the path and the status."""
        status = 0

        async def tapped(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
            await send(message)

        try:
            bytes_max = BATCH_BYTES_MAX if scope["path"] == _LINKS_BATCH else BODY_BYTES_MAX
            body = await read_body(scope, receive, bytes_max=bytes_max)
        except BodyRefused as exc:
            await send_answer(tapped, _refusal(exc))
            return "/api", status
        if scope["path"] == _LINKS and scope["method"] == "POST" and (answer := await self._try_to_create(scope, body)):
            await send_answer(send, answer, scope)
            return _LINKS, answer.status
        try:
            await self._api(scope, replay(body, receive), tapped)
        except Exception:
            logger.exception("a request of the API failed")
            if not status:
                await send_answer(tapped, problem_answer(INTERNAL, current_trace_id()))
        return getattr(scope.get("route"), "path", "/api"), status

    async def _try_to_create(self, scope: Scope, body: bytes) -> Answer | None:
        try:
            return await self._create(scope, body)
        except Exception:
            logger.exception("a create failed")
            return problem_answer(INTERNAL, current_trace_id())

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        observe = self._durations.get((method, route, status))
        if observe is None:
            observe = self._durations[method, route, status] = DURATION.labels(method, route, status).observe
        observe(seconds)

    def observe_waited(self, method: str, answer: bytes, seconds: float) -> None:
        """Counts a redirect as it is on the wire that had to be looked up; a fifth of what `observe` costs."""
        _WAITED[method][answer[_LAST_DIGIT]].observe(seconds)


def _describe(span: Span, method: str, route: str, status: int) -> None:
    span.update_name(f"{method} {route}" if route else method)
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))


def _missing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What every answer of the API carries: it is somebody's own data."""
    present = {name for name, _ in headers}
    wanted = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
    return [item for item in wanted if item[0] not in present]


def _refusal(refused: BodyRefused) -> Answer:
    answer = problem_answer(refused.problem, current_trace_id())
    if not refused.drained:  # what is still to come would be taken for the next request
        return Answer(answer.status, [*answer.headers, (b"connection", b"close")], answer.body)
    return answer
