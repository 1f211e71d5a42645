"""One broker, one database, and `python -m audit` as a real process beside them."""

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
from pathlib import Path

import httpx

from audit.domain.checkpoint import Signer, Verifier
from audit.domain.leaf import Leaf
from audit.domain.tiles import log_name
from audit.domain.verify import Verified, verify
from audit.handlers.leaf_codec import decode_leaf
from chassis.auth import GATEWAY, Principal, principal_to_message
from chassis.clock import SystemClock
from chassis.grpc_client import open_channel
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from contracts.link import LinkEvent
from contracts.link_codec import encode_event, event_type_name
from contracts.scopes import AUDIT_READ
from contracts.topics import LINKS_EVENTS
from linkmesh.local.ports import free_port
from shortener.audit.v1 import audit_service_pb2 as audit_pb
from shortener.audit.v1 import audit_service_pb2_grpc as audit_grpc
from shortener.key.v1 import key_service_pb2 as key_pb

READY_TIMEOUT_S = 30.0
SEED = bytes(range(32))
ORIGIN = "log.example"


@dataclass
class Deployment:
    """Where everything is; several processes of it share the audit directory."""

    kafka: str
    dynamodb: str
    folder: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        (self.folder / "seed").write_text(SEED.hex())
        (self.folder / "secret").write_text(self.secret)

    @property
    def logs(self) -> Path:
        """The audit directory."""
        return self.folder / "logs"

    def verifier(self, partition: int) -> Verifier:
        """Who signs the log of a partition."""
        return Signer(f"{ORIGIN}/audit/{log_name(LINKS_EVENTS.name, partition)}", SEED).verifier

    def verified(self, partition: int) -> Verified | None:
        """The whole log of a partition, proved; None without a checkpoint."""
        folder = self.logs / log_name(LINKS_EVENTS.name, partition)
        if not (folder / "checkpoint").exists():
            return None
        return verify(
            lambda path: (folder / path).read_bytes() if (folder / path).exists() else None, self.verifier(partition)
        )

    def leaves(self) -> dict[int, list[Leaf]]:
        """The leaves of every log, each log proved."""
        found = {partition: self.verified(partition) for partition in range(LINKS_EVENTS.partitions)}
        return {partition: [decode_leaf(entry) for entry in log.entries] for partition, log in found.items() if log}

    def recorded(self) -> int:
        """How many leaves the checkpoints cover; cheap enough to poll."""
        notes = self.logs.glob(f"{LINKS_EVENTS.name}/*/checkpoint")
        return sum(int(note.read_text().splitlines()[1]) for note in notes)

    async def until_recorded(self, count: int, *, timeout_s: float = 60.0) -> None:
        """Returns when so many leaves are under checkpoints; fails after a while."""
        deadline = time.monotonic() + timeout_s
        while self.recorded() < count:
            assert time.monotonic() < deadline, f"{self.recorded()} of {count} leaves after {timeout_s} s"
            await asyncio.sleep(0.05)


class AuditProcess:
    """`python -m audit` of a deployment."""

    def __init__(self, deployment: Deployment, **settings: str) -> None:
        self._deployment = deployment
        self.grpc_port, self.admin_port = free_port(), free_port()
        files = deployment.folder
        own = {
            "ENVIRONMENT": "development",
            "GRPC_PORT": str(self.grpc_port),
            "ADMIN_PORT": str(self.admin_port),
            "KAFKA": deployment.kafka,
            "DYNAMODB": deployment.dynamodb,
            "MESH_SECRET_FILE": str(files / "secret"),
            "AUDIT_DIR": str(deployment.logs),
            "AUDIT_SIGNING_KEY_FILE": str(files / "seed"),
            "AUDIT_ORIGIN": ORIGIN,
        } | settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
        self._environment = inherited | {f"LINKMESH_{name}": value for name, value in own.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; does not wait."""
        with (self._deployment.folder / "audit.log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "audit"], env=self._environment, stderr=log)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def end(self) -> None:
        """Sees to it that it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    async def readiness(self) -> tuple[bool, dict[str, str]]:
        """What /readyz says; not ready while it does not answer."""
        try:
            async with httpx.AsyncClient() as client:
                answer = (await client.get(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=2)).json()
        except httpx.TransportError:
            return False, {}
        return answer["ready"], answer["reasons"]

    async def until_ready(self) -> None:
        """Returns when it is ready; fails after 30 s."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (state := await self.readiness())[0]:
            assert self._process is not None
            assert self._process.poll() is None, (self._deployment.folder / "audit.log").read_text()[-4000:]
            assert time.monotonic() < deadline, state
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """A client of its AuditService, as the gateway."""
        secret = self._deployment.secret.encode()
        target = f"127.0.0.1:{self.grpc_port}"
        async with open_channel(target, peer="audit", process=GATEWAY, mesh_secret=secret) as channel:
            yield Client(audit_grpc.AuditServiceStub(channel))


class Client:
    """Calls for a principal."""

    def __init__(self, stub: "audit_grpc.AuditServiceAsyncStub") -> None:
        self._stub = stub

    async def checkpoint(self, partition: int, user_id: str = "ada") -> audit_pb.GetCheckpointResponse:
        """GetCheckpoint."""
        request = audit_pb.GetCheckpointRequest(principal=principal(user_id), partition=partition)
        return await self._stub.GetCheckpoint(request, timeout=5)

    async def page(
        self,
        user_id: str,
        code: str = "",
        *,
        size: int = 0,
        token: str = "",
        scopes: frozenset[str] = frozenset({AUDIT_READ}),
    ) -> audit_pb.ListEntriesResponse:
        """One page of ListEntries."""
        request = audit_pb.ListEntriesRequest(
            principal=principal(user_id, scopes), short_code=code, page_size=size, page_token=token
        )
        return await self._stub.ListEntries(request, timeout=5)

    async def entries(self, user_id: str, code: str = "", *, size: int = 0) -> list[audit_pb.AuditEntry]:
        """All pages of ListEntries."""
        found: list[audit_pb.AuditEntry] = []
        token = ""
        while True:
            page = await self.page(user_id, code, size=size, token=token)
            found.extend(page.entries)
            token = page.next_page_token
            if not token:
                return found


def principal(user_id: str, scopes: frozenset[str] = frozenset({AUDIT_READ})) -> key_pb.Principal:
    """A principal as the gateway states it."""
    return principal_to_message(Principal(user_id, scopes))


def message_of(event: LinkEvent, traceparent: str | None = None) -> Message:
    """The message that the relay sends for an event."""
    headers = event_headers(
        event_id=event.event_id,
        event_type=event_type_name(event.type),
        source="link_service",
        time=event.at,
        subject=event.link.key,
        traceparent=traceparent,
    )
    return Message(LINKS_EVENTS.name, event.link.key.encode(), encode_event(event), headers)


async def send(kafka: str, messages: Sequence[Message]) -> None:
    """Sends messages in order, all of them."""
    async with Producer(kafka, client_id="tests", clock=SystemClock()) as producer:
        for at in range(0, len(messages), 200):
            batch = messages[at : at + 200]
            assert await producer.send_in_order(batch, timeout_s=20) == len(batch)
