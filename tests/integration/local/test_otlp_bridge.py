"""Spans go from an OpenTelemetry exporter through the bridge into Zipkin, and are found there."""

import asyncio
import time

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from linkmesh.local.engines import ZipkinEngine
from linkmesh.local.otlp_bridge import Collector, OtlpReceiver, ZipkinForwarder
from linkmesh.local.ports import free_port
from linkmesh.local.probes import http_status


def export(port: int, compression: Compression) -> str:
    """Send one span tree as a service would and return its trace id."""
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces", compression=compression, timeout=5)
    provider = TracerProvider(resource=Resource.create({"service.name": "gateway"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with (
        tracer.start_as_current_span("POST", kind=SpanKind.SERVER) as root,
        tracer.start_as_current_span("send", kind=SpanKind.PRODUCER, attributes={"messaging.system": "kafka"}),
    ):
        pass
    provider.shutdown()
    return f"{root.get_span_context().trace_id:032x}"


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_exported_spans_are_found_in_zipkin(zipkin: ZipkinEngine, compression: Compression) -> None:
    """What a service exports, plain or gzip, is in the collector at once and in Zipkin soon, with its remote end."""
    collector, port = Collector(), free_port()

    async def scenario() -> None:
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(OtlpReceiver(collector, port=port).run(stop))
            tasks.create_task(ZipkinForwarder(collector, zipkin.url).run(stop))
            while await http_status(port, "/") != 404:
                await asyncio.sleep(0.02)

            trace_id = await asyncio.to_thread(export, port, compression)

            assert {span.name for span in collector.trace(trace_id)} == {"POST", "send"}
            found = await spans_in_zipkin(zipkin, trace_id, count=2)
            assert {span["kind"] for span in found} == {"SERVER", "PRODUCER"}
            assert {"serviceName": "kafka"} in [span.get("remoteEndpoint") for span in found]
            stop.set()

    asyncio.run(scenario())
    assert collector.dropped == 0


@pytest.mark.rule("P8")
def test_bad_requests_are_refused_and_nothing_breaks() -> None:
    """P8: garbage, another path, another type, too much: each has its status, and the next good request is taken."""
    collector, port = Collector(), free_port()
    protobuf = {"content-type": "application/x-protobuf"}

    async def scenario() -> list[int]:
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(OtlpReceiver(collector, port=port).run(stop))
            while await http_status(port, "/") != 404:
                await asyncio.sleep(0.02)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                answers = [
                    await client.post("/v1/traces", content=b"\xff\xff", headers=protobuf),
                    await client.post("/v1/traces", content=b"zz", headers=protobuf | {"content-encoding": "gzip"}),
                    await client.post("/v1/traces", content=b"{}", headers={"content-type": "application/json"}),
                    await client.post("/v1/traces", content=bytes(5 << 20), headers=protobuf),
                    await client.get("/v1/traces"),
                    await client.post("/v1/logs", content=b"", headers=protobuf),
                    await client.post("/v1/traces", content=b"", headers=protobuf),
                ]
            stop.set()
        return [answer.status_code for answer in answers]

    assert asyncio.run(scenario()) == [400, 400, 415, 413, 405, 404, 200]


async def spans_in_zipkin(zipkin: ZipkinEngine, trace_id: str, count: int) -> list[dict[str, object]]:
    """Ask Zipkin until it has so many spans of a trace."""
    deadline = time.monotonic() + 10
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            answer = await client.get(f"{zipkin.url}/api/v2/trace/{trace_id}")
            found: list[dict[str, object]] = answer.json() if answer.status_code == 200 else []
            if len(found) >= count or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.1)
