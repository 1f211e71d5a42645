"""The gRPC face of a process: health in all six, reflection in development, and one interceptor that does the rest.

Down: health NOT_SERVING, half a second for callers to notice, streams end, then stop with a grace; and wait for the
handlers in flight, since `server.stop()` returns before aborted ones have finished (grpc issue 37239).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis.auth import Access, Verify
from chassis.clock import sleep_until_stop
from chassis.grpc_interceptor import STREAM_MAX_S, Policies, ServerInterceptor
from chassis.health import Readiness

_NOTICE_S = 0.5  # bare stop(grace) lost 16 of 10 742 requests in 3 of 8 restarts; with this notice none
_STOP_GRACE_S = 10.0
_READY_POLL_S = 0.2
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers on one port must clash, not share it silently
    # Our clients ping every 30 s, also when they have no calls: without both of these lines that is too much for a
    # server, which ends the connection at the third ping, and every call on it.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 1 << 20),
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A servicer, how it is added to a server, and what each of its methods demands: a scope, or an Access."""

    descriptor: ServiceDescriptor
    add: Callable[[grpc.aio.Server], None]
    policies: Mapping[str, str | Access]


class GrpcServer:
    """A component: serves until stop, then drains. Port 0 takes a free one; `port` tells which, once it runs."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        services: Sequence[Service],
        readiness: Readiness,
        mesh_secret: bytes,
        verify: Verify | None = None,
        reflect: bool = False,
        stream_max_s: float = STREAM_MAX_S,
    ) -> None:
        self._address = f"{host}:{port}"
        self._services = services
        self._readiness = readiness
        self._reflect = reflect
        self._interceptor = ServerInterceptor(
            _policies(services), mesh_secret=mesh_secret, verify=verify, stream_max_s=stream_max_s
        )
        self._is_serving = readiness.declare("grpc")
        self.port = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until stop is set.

        Raises:
            RuntimeError: the port is taken.
        """
        server = grpc.aio.server(interceptors=[self._interceptor], options=_OPTIONS)
        health_servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        names = [service.descriptor.full_name for service in self._services]
        for service in self._services:
            service.add(server)
        if self._reflect:
            reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        self.port = server.add_insecure_port(self._address)
        await server.start()
        self._is_serving(met=True)
        serving = None
        while not stop.is_set():
            if serving != self._readiness.ready:
                serving = self._readiness.ready
                await _tell(health_servicer, names, serving=serving)
            await sleep_until_stop(stop, _READY_POLL_S)
        self._readiness.drain()
        await _tell(health_servicer, names, serving=False)
        await asyncio.sleep(_NOTICE_S)
        self._interceptor.end_streams()
        await server.stop(_STOP_GRACE_S)
        await self._interceptor.finished()


async def _tell(servicer: health.aio.HealthServicer, names: Sequence[str], *, serving: bool) -> None:
    states = health_pb2.HealthCheckResponse
    state = states.SERVING if serving else states.NOT_SERVING
    for name in ("", *names):
        await servicer.set(name, state)


def _policies(services: Sequence[Service]) -> Policies:
    """Every method with what it demands.

    Raises:
        ValueError: a method declares nothing, a declaration has no method, or a method takes a stream: the interceptor
            guards calls with one request, and what others declare would be demanded of nobody.
    """
    policies: dict[str, str | Access] = {}
    for service in services:
        methods = {method.name for method in service.descriptor.methods}
        if methods != set(service.policies):
            odd = sorted(methods.symmetric_difference(service.policies))
            raise ValueError(f"{service.descriptor.full_name}: methods and declared access differ: {', '.join(odd)}")
        streams = [each.name for each in service.descriptor.methods if each.client_streaming]
        if streams:
            raise ValueError(
                f"{service.descriptor.full_name}: nothing guards streams of requests: {', '.join(streams)}"
            )
        policies.update({f"/{service.descriptor.full_name}/{name}": want for name, want in service.policies.items()})
    return policies
