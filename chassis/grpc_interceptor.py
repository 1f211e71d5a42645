"""What happens around every RPC handler: identity, access, deadline, span, metrics, errors.

A call has one answer, or is a stream of them; a stream that its client reads slowly is written slowly, and when the
process stops it ends with Unavailable, so that its reader goes elsewhere. Streams from clients are not offered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Gauge, Histogram

from chassis.auth import Access, Caller, Verify, identify, set_caller
from chassis.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from chassis.grpc_status import status_of
from chassis.telemetry import span

Policies = Mapping[str, str | Access]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # the messages are the handler's business
Handler: TypeAlias = "Callable[[Any, Context], Awaitable[Any]]"
StreamHandler: TypeAlias = "Callable[[Any, Context], AsyncIterator[Any]]"
_Work: TypeAlias = "Callable[[Caller], Awaitable[Any]]"
Request = TypeVar("Request")
Response = TypeVar("Response")

DEFAULT_DEADLINE_S = 5.0  # for public callers that state none
STREAM_MAX_S = 3600.0  # no stream lasts longer, whatever its caller states: one that reads nothing keeps a seat
_INFRASTRUCTURE = ("/grpc.health.v1.", "/grpc.reflection.")

RPC_DURATION = Histogram(
    "rpc_server_call_duration_seconds",
    "Time from an RPC's arrival to its answer",
    ["method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
RPC_STARTED = Counter("rpc_server_calls_started_total", "RPCs that were begun", ["method"])
RPC_STREAMS = Gauge("rpc_server_streams", "Streams that are open", ["method"])
logger = logging.getLogger(__name__)


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """One wrapper for every RPC but health and reflection."""

    def __init__(
        self, policies: Policies, *, mesh_secret: bytes, verify: Verify | None, stream_max_s: float = STREAM_MAX_S
    ) -> None:
        self._policies = policies
        self._stream_max_s = stream_max_s
        self._mesh_secret = mesh_secret
        self._verify = verify
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._streams: set[asyncio.Timeout] = set()  # the deadlines of those that are open
        self._ending = False

    def end_streams(self) -> None:
        """From now on no stream begins, and those that are open end."""
        self._ending = True
        now = asyncio.get_running_loop().time()
        for deadline in self._streams:
            if not deadline.expired():
                deadline.reschedule(now)

    async def finished(self) -> None:
        """Returns when no handler is running."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Request, Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Request, Response] | None:
        """The handler of an RPC, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_INFRASTRUCTURE):
            return handler
        decode, encode = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            inner = cast("Handler", handler.unary_unary)  # the stubs know only of the synchronous kind

            async def wrapped(request: Request, context: Context) -> Response:
                work = partial(self._answered, inner, request, context)
                return await self._call(method, work, context)  # type: ignore[no-any-return]  # see inner

            return grpc.unary_unary_rpc_method_handler(wrapped, decode, encode)
        if handler.unary_stream is None:
            raise PermissionError(f"nothing guards {method}")  # GrpcServer refused it before

        stream = cast("StreamHandler", handler.unary_stream)

        async def streamed(request: Request, context: Context) -> None:
            RPC_STREAMS.labels(method.lstrip("/")).inc()
            try:
                await self._call(method, partial(self._streamed, stream, request, context), context)
            finally:
                RPC_STREAMS.labels(method.lstrip("/")).dec()

        return grpc.unary_stream_rpc_method_handler(streamed, decode, encode)

    async def _call(self, method: str, work: _Work, context: Context) -> Any:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        started = time.perf_counter()
        name = method.lstrip("/")
        self._enter(name)
        status = grpc.StatusCode.CANCELLED
        try:
            with span(
                name, SpanKind.SERVER, parent=metadata.get("traceparent"), attributes=_attributes(name)
            ) as current:
                try:
                    caller = await self._admitted(method, metadata)
                    answer = await work(caller)
                except Exception as exc:  # noqa: BLE001 (the boundary: told to the caller, logged by _told)
                    error = _told(name, exc)
                    current.set_attribute("rpc.response.status_code", error.status.name)
                    current.set_attribute("error.type", error.reason)
                else:
                    status = grpc.StatusCode.OK
                    return answer
            status = error.status
            return await context.abort_with_status(status_of(error))  # raises, always
        finally:
            self._leave()
            RPC_DURATION.labels(name, status.name).observe(time.perf_counter() - started)

    async def _answered(self, handler: Handler, request: object, context: Context, caller: Caller) -> Any:
        remaining_s = _remaining_s(context, caller, default_s=DEFAULT_DEADLINE_S)
        try:
            async with asyncio.timeout(remaining_s):
                return await handler(request, context)
        except TimeoutError as exc:
            raise DeadlineExceeded("deadline_exceeded", "The deadline is over.") from exc

    async def _streamed(self, handler: StreamHandler, request: object, context: Context, caller: Caller) -> None:
        if self._ending:
            raise _stopping()
        answers = handler(request, context)
        remaining_s = _remaining_s(context, caller, default_s=self._stream_max_s)
        deadline = asyncio.timeout(min(remaining_s, self._stream_max_s))
        try:
            async with deadline:
                self._streams.add(deadline)
                async for answer in answers:
                    await context.write(answer)  # waits while the client does not read
        except TimeoutError as exc:
            if self._ending:
                raise _stopping() from exc
            raise DeadlineExceeded("deadline_exceeded", "The deadline is over.") from exc
        finally:
            self._streams.discard(deadline)
            if isinstance(answers, AsyncGenerator):
                await answers.aclose()  # now, not when the collector finds it

    async def _admitted(self, method: str, metadata: dict[str, str]) -> Caller:
        caller = await identify(metadata, mesh_secret=self._mesh_secret, verify=self._verify)
        self._admit(method, caller)
        set_caller(caller)
        return caller

    def _admit(self, method: str, caller: Caller) -> None:
        """Turns away callers that cannot have what the method demands; scopes are checked with the principal."""
        demand = self._policies.get(method)
        if demand is None:
            raise PermissionDenied("permission_denied", "Nobody may call this.")
        if demand is Access.MESH and caller.process is None:
            raise PermissionDenied("permission_denied", "This is for our own processes.")
        if isinstance(demand, str) and caller == Caller(None, None):
            raise Unauthenticated("unauthenticated", "An API key is needed.")

    def _enter(self, name: str) -> None:
        RPC_STARTED.labels(name).inc()
        self._in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()


def _remaining_s(context: Context, caller: Caller, *, default_s: float) -> float:
    """How long the call may take. Raises InvalidArgument if one of our own processes does not say."""
    remaining_s = cast("float | None", context.time_remaining())  # None without a deadline, whatever the stubs say
    if remaining_s is not None:
        return remaining_s
    if caller.process is not None:
        raise InvalidArgument("malformed_request", "A call between our own processes needs a deadline.")
    return default_s


def _stopping() -> Unavailable:
    return Unavailable("unavailable", "This process stops.", retry_after_s=1)


def _attributes(name: str) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": name}


def _told(name: str, failure: Exception) -> ServiceError:
    """What the caller is told of a failure: our own errors as they are, of others nothing but that they are ours."""
    if isinstance(failure, ServiceError):
        return failure
    logger.error("%s failed", name, exc_info=failure)
    return Internal("internal", "Something went wrong on our side.")
