"""`python -m gateway` as a process of its own: its traces, its end, and what it says to a bad configuration."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer
from chassis.grpc_status import may_have_happened
from chassis.health import Readiness
from linkmesh.local.engines import KafkaEngine, ValkeyEngine
from linkmesh.local.otlp_bridge import Collector, OtlpReceiver
from linkmesh.local.ports import free_port
from linkmesh.local.spans import Span
from linkmesh.local.storage import ensure_topics
from shortener.link.v1.link_service_pb2 import CreateLinkRequest
from shortener.link.v1.link_service_pb2_grpc import LinkServiceStub
from tests.fakes.gateway_peers import KEY, FakePeers, make_link

STRANGER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RESOLVE = "shortener.link.v1.LinkService/ResolveLink"
_WAIT_S = 20.0


@contextlib.asynccontextmanager
async def process(environment: dict[str, str]) -> AsyncIterator[Process]:
    """`python -m gateway`, killed on the way out if it still lives."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
    paths = os.pathsep.join(path for path in sys.path if path)
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env=inherited | {"PYTHONPATH": paths} | environment, stderr=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


def settings(folder: Path, peers_port: int, otlp_port: int, kafka: str, redis: str) -> dict[str, str]:
    """The environment of a gateway in development."""
    (folder / "secret").write_text("between us")
    (folder / "visitors").write_text("11" * 32)
    peer = f"127.0.0.1:{peers_port}"
    return {
        "LINKMESH_ENVIRONMENT": "development",
        "LINKMESH_HTTP_PORT": str(free_port()),
        "LINKMESH_GRPC_PORT": str(free_port()),
        "LINKMESH_ADMIN_PORT": str(free_port()),
        "LINKMESH_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp_port}",
        "LINKMESH_MESH_SECRET_FILE": str(folder / "secret"),
        "LINKMESH_VISITOR_KEY_FILE": str(folder / "visitors"),
        "LINKMESH_SPOOL_DIR": str(folder / "spool"),
        "LINKMESH_KAFKA": kafka,
        "LINKMESH_REDIS": redis,
        "LINKMESH_LINK_SERVICE": peer,
        "LINKMESH_ANALYTICS": peer,
        "LINKMESH_WEBHOOK": peer,
        "LINKMESH_AUDIT": peer,
    }


async def answered(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """The first answer of a process that is starting."""
    async with asyncio.timeout(_WAIT_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                return await client.get(path, headers={"traceparent": STRANGER})
            await SystemClock().sleep(0.05)


def named(spans: list[Span], name: str) -> Span:
    """The only span of that name."""
    (found,) = [span for span in spans if span.name == name]
    return found


def test_a_redirect_is_one_trace_of_our_own(tmp_path: Path, kafka: KafkaEngine, valkey: ValkeyEngine) -> None:
    """GET /{code} is a root that only links to a stranger's trace; look-up and click hang below it; no URL, key or
    address is in it; SIGTERM sends the click and the spans, and ends the process with 0.
    """

    async def main() -> None:
        await ensure_topics(kafka.bootstrap)
        peers, collector, stop = FakePeers(), Collector(), asyncio.Event()
        peers.links.links["traced-1"] = make_link("traced-1")
        receiver = OtlpReceiver(collector, port=free_port())
        served = GrpcServer(
            host="127.0.0.1",
            port=free_port(),
            services=peers.services(),
            readiness=Readiness(),
            mesh_secret=b"between us",
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receiver.run(stop))
            tasks.create_task(served.run(stop))
            async with asyncio.timeout(_WAIT_S):
                while not (receiver.port and served.port):
                    await SystemClock().sleep(0.01)
            environment = settings(tmp_path, served.port, receiver.port, kafka.bootstrap, valkey.url)
            base = f"http://127.0.0.1:{environment['LINKMESH_HTTP_PORT']}"
            headers = {"authorization": f"Bearer {KEY}", "user-agent": "Mozilla/5.0"}
            async with process(environment) as gateway, httpx.AsyncClient(base_url=base, headers=headers) as client:
                redirected = await answered(client, "/traced-1")
                made = await client.post("/api/links", json={"long_url": "https://example.com/secret"})
                refused = await client.get("/api/links/unknown")
                gateway.send_signal(signal.SIGTERM)
                async with asyncio.timeout(_WAIT_S):
                    code = await gateway.wait()
            stop.set()

        assert (redirected.status_code, made.status_code, refused.status_code, code) == (302, 201, 404, 0)
        spans = collector.spans
        root = named(spans, "GET /{code}")
        below = {span.name: span.parent_id for span in spans if span.trace_id == root.trace_id and span is not root}
        assert root.parent_id == ""
        assert [link[0] for link in root.links] == [STRANGER.split("-")[1]]
        assert below == {RESOLVE: root.span_id, "send analytics-events": root.span_id}
        assert root.attributes["http.response.status_code"] == "302"
        assert root.attributes["http.route"] == "/{code}"
        assert root.attributes["short_code"] == "traced-1"
        created = named(spans, "POST /api/links")
        assert created.trace_id != root.trace_id
        missing = named(spans, "GET /api/links/{code}")
        assert refused.json()["trace_id"] == missing.trace_id
        told = repr([span.attributes for span in spans])
        assert not [word for word in ("example.com", "lk_live_", "127.0.0.1", "Mozilla") if word in told]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"LINKMESH_VISITOR_KEY_FILE": ""}, "LINKMESH_VISITOR_KEY_FILE is missing"),
        ({"LINKMESH_MESH_SECRET_FILE": ""}, "LINKMESH_MESH_SECRET_FILE is missing"),
        ({"LINKMESH_KAFKA": ""}, "LINKMESH_KAFKA is missing"),
        ({"LINKMESH_TRUSTED_PROXIES": "some"}, "LINKMESH_TRUSTED_PROXIES: 'some' is not a number"),
        ({"LINKMESH_COUNTRY_HEADER": "cf-ipcountry"}, "LINKMESH_COUNTRY_HEADER needs LINKMESH_TRUSTED_PROXIES"),
        ({"LINKMESH_GEOIP_FILE": "/dev/null"}, "LINKMESH_GEOIP_FILE: no MaxMind DB"),
        ({"LINKMESH_TRUSTED_PROXYS": "1"}, "LINKMESH_TRUSTED_PROXYS is not a setting"),
    ],
)
def test_a_bad_configuration_is_named(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    """Without its secrets, its addresses, or with a misspelt name the process ends with 78 and says which it was."""

    async def main() -> None:
        environment = settings(tmp_path, 1, 1, "127.0.0.1:1", "redis://127.0.0.1:1/0") | {"LINKMESH_OTLP_ENDPOINT": ""}
        async with process(environment | change) as gateway, asyncio.timeout(_WAIT_S):
            _, errors = await gateway.communicate()

        assert gateway.returncode == 78
        assert sentence in errors.decode()

    asyncio.run(main())


_DIES_WHEN_ASKED = """
import asyncio, os, signal, sys, grpc
from shortener.link.v1 import link_service_pb2_grpc as grpc_stubs

class Dying(grpc_stubs.LinkServiceServicer):
    async def CreateLink(self, request, context):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    server = grpc.aio.server()
    grpc_stubs.add_LinkServiceServicer_to_server(Dying(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


@pytest.mark.rule("R1")
def test_a_lost_answer_is_not_a_refused_call() -> None:
    """A peer that dies while it is asked may have done it; one that nobody could connect to has not."""

    async def main() -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        peer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _DIES_WHEN_ASKED, env=dict(os.environ) | {"PYTHONPATH": paths}, stdout=PIPE
        )
        assert peer.stdout is not None
        async with asyncio.timeout(_WAIT_S):
            port = int(await peer.stdout.readline())
        async with open_channel(f"127.0.0.1:{port}", peer="x", process="gateway", mesh_secret=b"") as channel:
            links = LinkServiceStub(channel)
            with pytest.raises(Unavailable) as lost:
                await links.CreateLink(CreateLinkRequest(), timeout=10)
            async with asyncio.timeout(_WAIT_S):
                await peer.communicate()
        async with open_channel(f"127.0.0.1:{port}", peer="x", process="gateway", mesh_secret=b"") as channel:
            with pytest.raises(Unavailable) as refused:
                await LinkServiceStub(channel).CreateLink(CreateLinkRequest(), timeout=10)

        assert (may_have_happened(lost.value), may_have_happened(refused.value)) == (True, False)

    asyncio.run(main())
