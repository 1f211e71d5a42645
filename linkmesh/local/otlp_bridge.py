"""An OTLP/HTTP receiver that hands spans to Zipkin, and remembers the newest ones for whoever asks in this process.

Services speak the standard (POST /v1/traces, protobuf); Zipkin takes its own JSON only. The way between is bounded:
when Zipkin is slow or away, the oldest waiting spans are dropped and counted, never the services held up [P8].
"""

import asyncio
import zlib
from collections import deque

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from chassis.clock import sleep_until_stop
from chassis.http_server import App, HttpServer, Receive, Scope, Send
from linkmesh.local.spans import Span, spans_of, zipkin_span

_BODY_BYTES_MAX = 4 << 20  # an exporter's batch of 512 spans is some 300 KB
_WAITING_MAX = 10_000  # spans on their way to Zipkin
_KEPT_MAX = 20_000  # spans remembered here; as many as Zipkin keeps
_BATCH_MAX = 500
_FLUSH_S = 0.2
_POST_TIMEOUT_S = 5.0
_AWAY_S = 1.0  # how long Zipkin is left alone after it did not take a batch


class Collector:
    """The newest spans that arrived, and how many were dropped on the way to Zipkin."""

    def __init__(self, kept_max: int = _KEPT_MAX, waiting_max: int = _WAITING_MAX) -> None:
        self._kept: deque[Span] = deque(maxlen=kept_max)
        self._waiting: deque[Span] = deque(maxlen=waiting_max)
        self.received = 0
        self.dropped = 0

    @property
    def spans(self) -> list[Span]:
        """All remembered spans, in order of arrival."""
        return list(self._kept)

    def trace(self, trace_id: str) -> list[Span]:
        """The remembered spans of one trace."""
        return [span for span in self._kept if span.trace_id == trace_id]

    def add(self, spans: list[Span]) -> None:
        """Remember spans and line them up for Zipkin; the oldest in line give way when it is full."""
        room = (self._waiting.maxlen or 0) - len(self._waiting)
        self.dropped += max(0, len(spans) - room)
        self.received += len(spans)
        self._kept.extend(spans)
        self._waiting.extend(spans)

    def next_batch(self) -> list[Span]:
        """Take the next spans for Zipkin out of the line."""
        return [self._waiting.popleft() for _ in range(min(_BATCH_MAX, len(self._waiting)))]

    def put_back(self, batch: list[Span]) -> None:
        """Return a batch Zipkin did not take to the head of the line, as far as there is room."""
        room = (self._waiting.maxlen or 0) - len(self._waiting)
        self.dropped += max(0, len(batch) - room)
        self._waiting.extendleft(reversed(batch[max(0, len(batch) - room) :]))


class OtlpReceiver(HttpServer):
    """A component: listens for OTLP/HTTP on a loopback port and fills a collector."""

    def __init__(self, collector: Collector, *, port: int) -> None:
        super().__init__(_app(collector), host="127.0.0.1", port=port, drain_s=1)


class ZipkinForwarder:
    """A component: posts what the collector has in line to Zipkin, and what is left once more after stop."""

    def __init__(self, collector: Collector, zipkin_url: str) -> None:
        self._collector = collector
        self._url = f"{zipkin_url}/api/v2/spans"

    async def run(self, stop: asyncio.Event) -> None:
        """Forward until stop is set and the line is empty or Zipkin is away."""
        async with httpx.AsyncClient(timeout=_POST_TIMEOUT_S, trust_env=False) as client:
            while not await sleep_until_stop(stop, _FLUSH_S):
                if not await self._flush(client):
                    await sleep_until_stop(stop, _AWAY_S)
            await self._flush(client)

    async def _flush(self, client: httpx.AsyncClient) -> bool:
        while batch := self._collector.next_batch():
            try:
                answer = await client.post(self._url, json=[zipkin_span(span) for span in batch])
                taken = answer.is_success
            except httpx.HTTPError:
                taken = False
            if not taken:
                self._collector.put_back(batch)
                return False
        return True


def _app(collector: Collector) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = await _take(collector, scope, receive)
        headers = [(b"content-type", b"application/x-protobuf"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})  # an empty ExportTraceServiceResponse: all taken

    return app


async def _take(collector: Collector, scope: Scope, receive: Receive) -> int:
    """Decode a request into the collector and return the status to answer."""
    if scope["path"] != "/v1/traces":
        return 404
    if scope["method"] != "POST":
        return 405
    headers = dict(scope["headers"])
    if not headers.get(b"content-type", b"").startswith(b"application/x-protobuf"):
        return 415
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _BODY_BYTES_MAX:
            return 413
        if not message.get("more_body"):
            break
    try:
        plain = _inflated(bytes(body)) if headers.get(b"content-encoding") == b"gzip" else bytes(body)
        collector.add(spans_of(ExportTraceServiceRequest.FromString(plain)))
    except (DecodeError, zlib.error, ValueError):
        return 400
    return 200


def _inflated(body: bytes) -> bytes:
    """Return a gzip body's content.

    Raises:
        ValueError: it grows beyond what we take.
    """
    inflater = zlib.decompressobj(wbits=31)
    plain = inflater.decompress(body, _BODY_BYTES_MAX)
    if inflater.unconsumed_tail:
        raise ValueError("too large")
    return plain
