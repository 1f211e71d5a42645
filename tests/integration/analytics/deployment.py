"""`python -m analytics` as a real process beside a real broker and database, with a played link_service."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from analytics.domain.clicks import VisitorClass
from chassis.auth import GATEWAY, Access, principal_to_message
from chassis.clock import SystemClock
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer, Service
from chassis.health import Readiness
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from chassis.lifecycle import Component
from contracts.link import LinkKey
from contracts.topics import ANALYTICS_EVENTS, click_partition
from linkmesh.local.ports import free_port
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.key.v1.key_service_pb2_grpc import add_KeyServiceServicer_to_server
from shortener.link.v1 import link_service_pb2 as link_pb
from shortener.link.v1.link_service_pb2_grpc import add_LinkServiceServicer_to_server
from tests.fakes.analytics_clicks import click, message_of
from tests.fakes.gateway_peers import ALICE, FakeKeyService, FakeLinkService, make_link

READY_TIMEOUT_S = 30.0
PARTITIONS = 4


@dataclass
class Deployment:
    """What the processes of one test share: a topic and a group of their own, and who plays link_service."""

    kafka: str
    dynamodb: str
    topic: str
    folder: Path
    link_service: str
    links: FakeLinkService
    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        (self.folder / "secret").write_text(self.secret)

    def add_link(self, short_code: str) -> LinkKey:
        """A link of Alice's, made an hour ago."""
        created_at = datetime.now(UTC) - timedelta(hours=1)
        self.links.links[short_code] = make_link(short_code, created_at=created_at, updated_at=created_at)
        return LinkKey(short_code)


class Analytics:
    """One instance of analytics."""

    def __init__(self, deployment: Deployment, instance: str = "0", **settings: str) -> None:
        self._deployment = deployment
        self.grpc_port, self.admin_port = free_port(), free_port()
        own = {
            "ENVIRONMENT": "development",
            "GRPC_PORT": str(self.grpc_port),
            "ADMIN_PORT": str(self.admin_port),
            "INSTANCE": instance,
            "KAFKA": deployment.kafka,
            "DYNAMODB": deployment.dynamodb,
            "LINK_SERVICE": deployment.link_service,
            "MESH_SECRET_FILE": str(deployment.folder / "secret"),
            "TOPIC": deployment.topic,
            "GROUP": f"{deployment.topic}-group",
        } | settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
        self._environment = inherited | {f"LINKMESH_{name}": value for name, value in own.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """The end of what it logged."""
        return (self._deployment.folder / "analytics.log").read_text()[-6000:]

    async def start(self) -> None:
        """Starts it and returns when it is ready; fails after 30 s."""
        self._process = self._launch()
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin_port}") as client:
            while True:
                assert self._process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                try:
                    if (await client.get("/readyz", timeout=2)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def _launch(self) -> "subprocess.Popen[bytes]":
        with (self._deployment.folder / "analytics.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "analytics"], env=self._environment, stderr=log)

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=2)).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        """Any other signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    async def stats(self, short_code: str, **fields: object) -> pb.GetClickStatsResponse:
        """GetClickStats as the gateway asks it for Alice."""
        request = pb.GetClickStatsRequest(principal=principal_to_message(ALICE), short_code=short_code, **fields)  # type: ignore[arg-type]  # the fields of the message
        async with open_channel(
            f"127.0.0.1:{self.grpc_port}",
            peer="analytics",
            process=GATEWAY,
            mesh_secret=self._deployment.secret.encode(),
        ) as channel:
            return await AnalyticsServiceStub(channel).GetClickStats(request, timeout=5)

    async def until_counted(self, short_code: str, total: int, *, timeout_s: float = 30.0) -> pb.GetClickStatsResponse:
        """The stats once so many clicks are in them; fails after a while."""
        deadline = time.monotonic() + timeout_s
        while (stats := await self.stats(short_code)).clicks.total < total:
            assert time.monotonic() < deadline, f"{stats}\n{self.log}"
            await asyncio.sleep(0.05)
        return stats


def message(topic: str, key: LinkKey, *, visitor: str, visitor_class: VisitorClass = VisitorClass.HUMAN) -> Message:
    """A click of now, as the gateway sends it."""
    now = datetime.now(UTC)
    made = click(key, at_ms=int(now.timestamp() * 1000), visitor=visitor, visitor_class=visitor_class)
    headers = event_headers(
        event_id=secrets.token_hex(8),
        event_type=ANALYTICS_EVENTS.event_types[0],
        source="test",
        time=now,
        subject=key,
        traceparent=None,
    )
    return Message(topic, key.encode(), message_of(made).SerializeToString(), headers, click_partition(key, PARTITIONS))


async def send(kafka: str, messages: Sequence[Message]) -> None:
    """Returns when the broker has them all."""
    async with Producer(kafka, client_id="test", clock=SystemClock()) as producer:
        assert await producer.send_in_order(messages, timeout_s=20) == len(messages)


async def recreate(kafka: str, topic: str) -> None:
    """Delete a topic and create it under the same name, empty."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, client_id="test")
    await admin.start()
    try:
        await admin.delete_topics([topic])
        deadline = time.monotonic() + 20
        while True:
            new = NewTopic(topic, PARTITIONS, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})
            errors = (await admin.create_topics([new])).topic_errors
            if all(error[1] == 0 for error in errors):
                return
            assert time.monotonic() < deadline, errors
            await asyncio.sleep(0.1)
    finally:
        await admin.close()


@asynccontextmanager
async def deployed(kafka: str, dynamodb: str, topic: str, folder: Path) -> AsyncIterator[Deployment]:
    """A deployment whose link_service is served while the context is open; its processes are gone afterwards."""
    links, port = FakeLinkService(), free_port()
    deployment = Deployment(kafka, dynamodb, topic, folder, f"127.0.0.1:{port}", links)
    readiness = Readiness()
    server = GrpcServer(
        host="127.0.0.1",
        port=port,
        services=_services(links),
        readiness=readiness,
        mesh_secret=deployment.secret.encode(),
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_serve(server, stop))
        try:
            yield deployment
        finally:
            stop.set()


async def _serve(server: Component, stop: asyncio.Event) -> None:
    await server.run(stop)


def _services(links: FakeLinkService) -> list[Service]:
    link_service = link_pb.DESCRIPTOR.services_by_name["LinkService"]
    return [
        Service(
            link_service,
            partial(add_LinkServiceServicer_to_server, links),
            {method.name: Access.MESH for method in link_service.methods},
        ),
        Service(
            key_pb.DESCRIPTOR.services_by_name["KeyService"],
            partial(add_KeyServiceServicer_to_server, FakeKeyService()),
            {"CreateKey": Access.MESH, "VerifyKey": Access.MESH},
        ),
    ]
