"""Calls to our other processes: one channel a target, a deadline on every call, trace and secret in the metadata."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc
from opentelemetry.trace import SpanKind

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
    interceptor = _ClientInterceptor(peer, process, mesh_secret.decode())
    async with grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=[interceptor]) as channel:
        yield channel


class _ClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds trace and secret, demands a deadline, turns failures into ServiceErrors."""

    def __init__(self, peer: str, process: str, secret: str) -> None:
        self._peer = peer
        self._process = process
        self._secret = secret

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> Response:
        """Makes the call."""
        if client_call_details.timeout is None:
            raise ValueError("a call between our own processes needs a deadline")
        method = client_call_details.method
        name = os.fsdecode(method).lstrip("/")  # bytes at run time, text in the stubs
        attributes = {"rpc.system.name": "grpc", "rpc.method": name, "peer.service": self._peer}
        with span(name, SpanKind.CLIENT, attributes=attributes):
            metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
            metadata.add(CALLER_HEADER, self._process)
            metadata.add(SECRET_HEADER, self._secret)
            if traceparent := current_traceparent():
                metadata.add("traceparent", traceparent)
            call = await continuation(_with_metadata(client_call_details, metadata), request)
            try:
                return await call
            except grpc.aio.AioRpcError as exc:
                raise self._told(error_of(exc)) from exc

    def _told(self, error: ServiceError) -> ServiceError:
        """The error of a call. That the peer takes us for a stranger is our trouble, not our caller's wrong key."""
        if error.metadata.items() >= STRANGER.items():
            logger.error("%s does not take our mesh secret: is it the same in all processes?", self._peer)
            return Unavailable("unavailable", "A process does not know us.", retry_after_s=5)
        return error


def _with_metadata(details: grpc.aio.ClientCallDetails, metadata: grpc.aio.Metadata) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )
