"""A webhook process of a test's own, a receiver that answers as it is told, and records on links-events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from aiohttp import ClientSession, web

from chassis.clock import SystemClock
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from contracts.link import LinkEvent
from contracts.link_codec import encode_event, event_type_name
from contracts.topics import LINKS_EVENTS
from linkmesh.local.ports import free_port
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.webhook.v1 import webhook_service_pb2 as pb
from shortener.webhook.v1 import webhook_service_pb2_grpc as pb_grpc

SECRET = "the secret of this mesh"
ROOT = Path(__file__).parents[3]
MESH = (("linkmesh-caller", "gateway"), ("linkmesh-secret", SECRET))


@dataclass(frozen=True, slots=True)
class Received:
    """A request that arrived."""

    path: str
    headers: Mapping[str, str]
    body: str


@dataclass(slots=True)
class Receiver:
    """An HTTP server that keeps what arrives; `answers` has a function for a path, 204 is the answer elsewhere."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: dict[str, Callable[[int], int]] = field(default_factory=dict)  # of how many came before
    hanging: asyncio.Event = field(default_factory=asyncio.Event)  # set: those that hang go on

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def on(self, path: str) -> list[Received]:
        """What arrived at a path."""
        return [item for item in self.received if item.path == path]

    async def handle(self, request: web.Request) -> web.Response:
        """Keeps a request and answers it; paths under /hang are answered at the end of the test."""
        body = (await request.read()).decode()
        before = len(self.on(request.path))
        self.received.append(Received(request.path, dict(request.headers), body))
        if request.path.startswith("/hang"):
            await self.hanging.wait()
        answer = self.answers.get(request.path)
        return web.Response(status=204 if answer is None else answer(before))


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("POST", "/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    receiver.port = free_port()
    await web.TCPSite(runner, "127.0.0.1", receiver.port).start()
    try:
        yield receiver
    finally:
        receiver.hanging.set()
        await runner.cleanup()


class WebhookProcess:
    """`python -m webhook`, which can be killed and started again on the same settings."""

    def __init__(self, folder: Path, *, kafka: str, dynamodb: str, settings: Mapping[str, str] | None = None) -> None:
        secret = folder / "mesh.secret"
        secret.write_text(SECRET)
        self.grpc_port, self.admin_port = free_port(), free_port()
        self._log = folder / "webhook.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
        self._environment = inherited | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos/gen'}",
            "LINKMESH_ENVIRONMENT": "development",
            "LINKMESH_GRPC_PORT": str(self.grpc_port),
            "LINKMESH_ADMIN_PORT": str(self.admin_port),
            "LINKMESH_MESH_SECRET_FILE": str(secret),
            "LINKMESH_KAFKA": kafka,
            "LINKMESH_DYNAMODB": dynamodb,
            "LINKMESH_PUBLIC_URL": "http://127.0.0.1:8080",
            "LINKMESH_WEBHOOK_HTTP_HOSTS": "127.0.0.1,localhost",
            "LINKMESH_SWEEP_INTERVAL_S": "0.2",
            **(settings or {}),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it, and returns when it is ready."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "webhook", env=self._environment, cwd=ROOT, stdout=log, stderr=log
            )

        async def ready() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, self._log.read_text()
            async with ClientSession() as session:
                with contextlib.suppress(OSError):
                    async with session.get(f"http://127.0.0.1:{self.admin_port}/readyz") as answer:
                        return answer.status == 200
            return False

        await until(ready, within_s=40)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self._process = None

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.returncode is not None:
            return process.returncode
        process.terminate()
        try:
            async with asyncio.timeout(30):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def metrics(self) -> str:
        """The text of /metrics."""
        async with (
            ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.admin_port}/metrics") as answer,
        ):
            return await answer.text()

    @contextlib.asynccontextmanager
    async def service(self) -> AsyncIterator[pb_grpc.WebhookServiceAsyncStub]:
        """A client of its WebhookService."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            yield pb_grpc.WebhookServiceStub(channel)

    async def create_endpoint(self, user_id: str, url: str) -> pb.CreateEndpointResponse:
        """An endpoint of a premium account that is told of everything."""
        async with self.service() as service:
            request = pb.CreateEndpointRequest(principal=principal(user_id), url=url)
            return await service.CreateEndpoint(request, timeout=5, metadata=MESH)

    async def deliveries(self, user_id: str, endpoint_id: str) -> Sequence[pb.Delivery]:
        """The endpoint's deliveries, newest first."""
        async with self.service() as service:
            request = pb.ListDeliveriesRequest(principal=principal(user_id), endpoint_id=endpoint_id)
            answer = await service.ListDeliveries(request, timeout=5, metadata=MESH)
        return list(answer.deliveries)


def principal(user_id: str, *, plan: key_pb.Plan.ValueType = key_pb.PLAN_PREMIUM) -> key_pb.Principal:
    """The principal that the gateway states."""
    return key_pb.Principal(user_id=user_id, scopes=["webhooks:manage"], plan=plan)


async def publish(bootstrap: str, events: Sequence[LinkEvent], *, traceparent: str | None = None) -> None:
    """Puts events on links-events as the relay does."""
    messages = [
        Message(
            LINKS_EVENTS.name,
            event.link.key.encode(),
            encode_event(event),
            event_headers(
                event_id=event.event_id,
                event_type=event_type_name(event.type),
                source="link_service",
                time=event.at,
                subject=event.link.key,
                traceparent=traceparent,
            ),
        )
        for event in events
    ]
    async with Producer(bootstrap, client_id="tests", clock=SystemClock()) as producer:
        assert await producer.send_in_order(messages, timeout_s=20) == len(messages)


async def until(condition: Callable[[], bool | Coroutine[None, None, bool]], *, within_s: float = 20) -> None:
    """Returns when the condition, a function or a coroutine function, holds; fails after `within_s` seconds."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.05)
