"""Calls to our other processes: one channel a target, a deadline on every call, trace and secret in the metadata."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import grpc
from opentelemetry.trace import Span, SpanKind

from chassis.auth import CALLER_HEADER, SECRET_HEADER, STRANGER
from chassis.errors import ServiceError, Unavailable
from chassis.grpc_status import error_of
from chassis.telemetry import current_traceparent, span

Request = TypeVar("Request")
Response = TypeVar("Response")

logger = logging.getLogger(__name__)
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a peer that restarts is found again within the promised 30 s
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),  # a mutation without an idempotency key is never sent twice [R1]
    ("grpc.lb_policy_name", "round_robin"),
)


@contextlib.asynccontextmanager
async def open_channel(target: str, *, peer: str, process: str, mesh_secret: bytes) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `peer` at `target` (host:port or a gRPC name), as the process `process`; closed on the way out.

    It connects when first used, so that processes start in any order. Calls through it raise ServiceError kinds, and
    ValueError if they carry no deadline.
    """
    frame = _Frame(peer, process, mesh_secret.decode())
    interceptors = [_CallInterceptor(frame), _StreamInterceptor(frame)]
    async with grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=interceptors) as channel:
        yield channel


class _Frame:
    """What every call of a channel carries, and how its failure is told."""

    def __init__(self, peer: str, process: str, secret: str) -> None:
        self._peer = peer
        self._process = process
        self._secret = secret

    def span(self, details: grpc.aio.ClientCallDetails) -> AbstractContextManager[Span]:
        """A span around the call. Raises ValueError if it has no deadline."""
        if details.timeout is None:
            raise ValueError("a call between our own processes needs a deadline")
        name = os.fsdecode(details.method).lstrip("/")  # bytes at run time, text in the stubs
        attributes = {"rpc.system.name": "grpc", "rpc.method": name, "peer.service": self._peer}
        return span(name, SpanKind.CLIENT, attributes=attributes)

    def carried(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        """The call with secret and current trace."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        metadata.add(CALLER_HEADER, self._process)
        metadata.add(SECRET_HEADER, self._secret)
        if traceparent := current_traceparent():
            metadata.add("traceparent", traceparent)
        return _with_metadata(details, metadata)

    def told(self, failure: grpc.aio.AioRpcError) -> ServiceError:
        """The error of a call. That the peer takes us for a stranger is our trouble, not our caller's wrong key."""
        error = error_of(failure)
        if error.metadata.items() >= STRANGER.items():
            logger.error("%s does not take our mesh secret: is it the same in all processes?", self._peer)
            return Unavailable("unavailable", "A process does not know us.", retry_after_s=5)
        return error


class _CallInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds trace and secret, demands a deadline, turns failures into ServiceErrors."""

    def __init__(self, frame: _Frame) -> None:
        self._frame = frame

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> Response:
        """Makes the call."""
        with self._frame.span(client_call_details):
            call = await continuation(self._frame.carried(client_call_details), request)
            try:
                return await call
            except grpc.aio.AioRpcError as exc:
                raise self._frame.told(exc) from exc


class _StreamInterceptor(grpc.aio.UnaryStreamClientInterceptor):
    """The same for a stream of answers. Its span covers the beginning: a trace does not wait for hours. Who does not
    read to the end cancels the call, or the task that reads is cancelled.
    """

    def __init__(self, frame: _Frame) -> None:
        self._frame = frame

    async def intercept_unary_stream(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryStreamCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> AsyncIterator[Response]:
        """Begins the stream."""
        with self._frame.span(client_call_details):
            call = await continuation(self._frame.carried(client_call_details), request)
        return self._answers(call)

    async def _answers(self, call: grpc.aio.UnaryStreamCall[Request, Response]) -> AsyncIterator[Response]:
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as exc:
            raise self._frame.told(exc) from exc


def _with_metadata(details: grpc.aio.ClientCallDetails, metadata: grpc.aio.Metadata) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )
