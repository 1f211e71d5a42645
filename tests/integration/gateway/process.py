"""The whole gateway in this process, on real engines, with the other five processes played by fakes over real gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from chassis.clock import SystemClock
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from gateway.app import build
from gateway.config import Config
from linkmesh.local.ports import free_port
from tests.fakes.gateway_peers import KEY, FakePeers

_START_S = 20.0


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """Where it listens, and a client that holds a key."""

    port: int
    admin_port: int
    client: httpx.AsyncClient
    stop: asyncio.Event


@contextlib.asynccontextmanager
async def running_gateway(
    peers: FakePeers, folder: Path, *, kafka: str, redis: str, spool_bytes_max: int = 64 << 20
) -> AsyncIterator[RunningGateway]:
    """A gateway that is ready; drained on the way out."""
    (folder / "secret").write_text("between us")
    (folder / "visitors").write_text("11" * 32)
    peers_port = free_port()
    config = Config(
        environment="development",
        grpc_port=free_port(),
        admin_port=free_port(),
        http_port=free_port(),
        mesh_secret_file=folder / "secret",
        visitor_key_file=folder / "visitors",
        kafka=kafka,
        redis=redis,
        link_service=f"127.0.0.1:{peers_port}",
        analytics=f"127.0.0.1:{peers_port}",
        webhook=f"127.0.0.1:{peers_port}",
        audit=f"127.0.0.1:{peers_port}",
        spool_dir=folder / "spool",
        spool_bytes_max=spool_bytes_max,
    )
    stop, peers_stop = asyncio.Event(), asyncio.Event()
    played = GrpcServer(
        host="127.0.0.1", port=peers_port, services=peers.services(), readiness=Readiness(), mesh_secret=b"between us"
    )
    base = f"http://127.0.0.1:{config.http_port}"
    async with (
        httpx.AsyncClient(base_url=base, headers={"authorization": f"Bearer {KEY}"}, timeout=10) as client,
        asyncio.TaskGroup() as outer,
    ):
        outer.create_task(played.run(peers_stop))
        try:
            async with build(config) as components, asyncio.TaskGroup() as inner:
                for component in components:
                    inner.create_task(component.run(stop))
                try:
                    await _ready(f"http://127.0.0.1:{config.admin_port}/readyz")
                    yield RunningGateway(config.http_port, config.admin_port, client, stop)
                finally:
                    stop.set()
        finally:
            peers_stop.set()


async def _ready(url: str) -> None:
    clock = SystemClock()
    async with asyncio.timeout(_START_S), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).status_code == 200:
                    return
            await clock.sleep(0.02)
