"""link_service as a process of its own, on real engines, and a caller like the gateway."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from chassis.clock import SystemClock
from chassis.errors import ServiceError
from chassis.grpc_client import open_channel
from contracts.topics import LINKS_EVENTS
from link_service.adapters.event_log_kafka import WRITER_GROUP
from linkmesh.local.engines import DynamoDBEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.key.v1 import key_service_pb2_grpc as key_rpc
from shortener.link.v1 import link_service_pb2 as pb
from shortener.link.v1 import link_service_pb2_grpc as rpc

if TYPE_CHECKING:  # the stubs have asynchronous names for the type checker only
    from shortener.key.v1.key_service_pb2_grpc import KeyServiceAsyncStub
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub

ROOT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 30.0
URL = "https://example.org/"


@dataclass
class Engines:
    """What the process stands on."""

    valkey: ValkeyEngine
    dynamodb: DynamoDBEngine
    kafka_bootstrap: str
    dynamodb_endpoint: str = ""  # of a proxy in front of it


class ServiceProcess:
    """`python -m link_service`."""

    def __init__(self, engines: Engines, folder: Path) -> None:
        self._engines = engines
        self._folder = folder
        self.grpc_port, self.admin_port = free_port(), free_port()
        for name in ("code", "pepper", "mesh"):
            (folder / name).write_text(secrets.token_hex(32))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mesh_secret(self) -> bytes:
        """What our own processes know."""
        return (self._folder / "mesh").read_bytes()

    async def start(self) -> None:
        """Starts it and waits until it is ready."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
        environment |= {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos' / 'gen'}",
            "LINKMESH_GRPC_PORT": str(self.grpc_port),
            "LINKMESH_ADMIN_PORT": str(self.admin_port),
            "LINKMESH_KAFKA": self._engines.kafka_bootstrap,
            "LINKMESH_REDIS": self._engines.valkey.url,
            "LINKMESH_DYNAMODB": self._engines.dynamodb_endpoint or self._engines.dynamodb.endpoint,
            "LINKMESH_PUBLIC_URL": "http://127.0.0.1:8080",
            "LINKMESH_CODE_KEY_FILE": str(self._folder / "code"),
            "LINKMESH_API_KEY_PEPPER_FILE": str(self._folder / "pepper"),
            "LINKMESH_MESH_SECRET_FILE": str(self._folder / "mesh"),
        }
        self._process = child = self._launch(environment)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            assert child.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            await SystemClock().sleep(0.05)

    def _launch(self, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "link_service"], env=environment, cwd=self._folder, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        """SIGTERM; how it ended."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(10)

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._folder / "log").read_text()

    def metric(self, name: str) -> float:
        """A sample of /metrics, by its name with labels; 0 if it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


async def the_writer_catches_up(bootstrap: str) -> None:
    """Commits the end of every partition of links-events for the writer's group, which has no member here."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=WRITER_GROUP, enable_auto_commit=False)
    async with asyncio.timeout(20), consumer:
        partitions = [TopicPartition(LINKS_EVENTS.name, number) for number in range(LINKS_EVENTS.partitions)]
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))


@contextlib.contextmanager
def process(engines: Engines, folder: Path) -> Iterator[ServiceProcess]:
    """A process that is gone afterwards."""
    service = ServiceProcess(engines, folder)
    try:
        yield service
    finally:
        if service._process is not None:
            service.stop()


class Gateway:
    """A caller that holds the mesh secret and may state a principal."""

    def __init__(self, links: "LinkServiceAsyncStub", keys: "KeyServiceAsyncStub") -> None:
        self.links = links
        self.keys = keys
        self.principal = key_pb.Principal(user_id="ada", scopes=["links:read", "links:write"])

    async def create(self, code: str = "", *, user_id: str = "ada", timeout_s: float = 5) -> pb.CreateLinkResponse:
        """CreateLink for an account."""
        principal = key_pb.Principal(user_id=user_id, scopes=["links:write"])
        request = pb.CreateLinkRequest(principal=principal, long_url=URL, custom_code=code)
        return await self.links.CreateLink(request, timeout=timeout_s)

    async def delete(self, code: str, *, user_id: str = "ada") -> pb.DeleteLinkResponse:
        """DeleteLink for an account."""
        principal = key_pb.Principal(user_id=user_id, scopes=["links:write"])
        return await self.links.DeleteLink(pb.DeleteLinkRequest(principal=principal, short_code=code), timeout=5)

    async def resolve(self, code: str, *, timeout_s: float = 0.3) -> pb.ResolveLinkResponse:
        """ResolveLink, with a redirect's deadline."""
        return await self.links.ResolveLink(pb.ResolveLinkRequest(short_code=code), timeout=timeout_s)


@contextlib.asynccontextmanager
async def gateway(service: ServiceProcess) -> AsyncIterator[Gateway]:
    """A caller with an open channel."""
    target = f"127.0.0.1:{service.grpc_port}"
    async with open_channel(target, peer="link_service", process="gateway", mesh_secret=service.mesh_secret) as channel:
        yield Gateway(rpc.LinkServiceStub(channel), key_rpc.KeyServiceStub(channel))


Scenario = Callable[[ServiceProcess, Gateway], Awaitable[None]]
Play = Callable[[Scenario], None]


async def until(try_it: Callable[[], Awaitable[bool]], *, timeout_s: float = 15) -> None:
    """Polls until it holds; fails when it never does."""
    deadline = time.monotonic() + timeout_s
    while not await try_it():
        assert time.monotonic() < deadline, "it never came true"
        await SystemClock().sleep(0.05)


def works(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[bool]]:
    """Whether a call succeeds now."""

    async def attempt() -> bool:
        try:
            await call()
        except ServiceError:
            return False
        return True

    return attempt
