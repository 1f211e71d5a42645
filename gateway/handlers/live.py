"""GET /api/links/{code}/clicks/live: clicks as they are counted, as server-sent events (WHATWG HTML, section 9.2).

A stream is one call of analytics, which ends when the client goes, when the process stops, or after a quarter of an
hour; an EventSource then comes again by itself. What a client does not read is not read from analytics either, which
keeps its newest clicks and says how many it left out. What happens between two streams is not told.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import Gauge
from starlette.responses import Response

from chassis.errors import DeadlineExceeded, ResourceExhausted, ServiceError, Unavailable
from chassis.http_server import Receive, Scope, Send
from contracts.reasons import Reason
from gateway.handlers.shapes import live_click_json, time_or_none
from shortener.analytics.v1.analytics_service_pb2 import WatchClicksRequest, WatchClicksResponse

if TYPE_CHECKING:
    import grpc

OPEN = Gauge("live_streams", "Streams of live clicks that are open.")

STREAM_TIMEOUT_S = 960.0  # analytics ends it after 15 minutes
_FIRST_TIMEOUT_S = 5.0  # then something is wrong; analytics gives up after 2 s
_WRITE_TIMEOUT_S = 30.0  # a client that takes nothing for so long is as good as gone
_RETRY_MS = 3000
_STREAMS_MAX = 256  # each holds a connection, a call and some kB
_HEAD = f"retry: {_RETRY_MS}\n\n".encode()

Begin = Callable[[], "grpc.aio.UnaryStreamCall[WatchClicksRequest, WatchClicksResponse]"]


class LiveStreams:
    """All streams of this process. A component: when it is told to stop, they end, and no new one begins."""

    def __init__(self, *, streams_max: int = _STREAMS_MAX) -> None:
        self._left = streams_max
        self._ending = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Returns at stop."""
        await stop.wait()
        self._ending.set()

    async def ended(self) -> None:
        """Returns when the process stops."""
        await self._ending.wait()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for one stream.

        Raises:
            Unavailable: the process stops.
            ResourceExhausted: all places are taken.
        """
        if self._ending.is_set():
            raise Unavailable(Reason.UNAVAILABLE.code, "This process stops.", retry_after_s=1)
        if not self._left:
            raise ResourceExhausted(Reason.RATE_LIMITED.code, "Too many watch live clicks.", retry_after_s=10)
        self._left -= 1
        OPEN.inc()
        try:
            yield
        finally:
            self._left += 1
            OPEN.dec()


class EventStream(Response):
    """The answer that goes on. An error before the first news is answered as any other; a later one ends the stream."""

    media_type = "text/event-stream"

    def __init__(self, streams: LiveStreams, begin: Begin) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})  # a proxy that collects would defeat it
        del self.headers["content-length"]
        self._streams = streams
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Streams until one of the three ends it."""
        with self._streams.place():
            call = self._begin()
            try:
                answers = aiter(call)
                first = await _first(answers)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._stream(first, answers, receive, send)
            finally:
                call.cancel()

    async def _stream(
        self, first: WatchClicksResponse, answers: AsyncIterator[WatchClicksResponse], receive: Receive, send: Send
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(_tell(first, answers, send))
            leaving = tasks.create_task(_until_gone(receive))
            ends = [telling, leaving, tasks.create_task(self._streams.ended())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            gone = leaving.done()
            for end in ends:
                end.cancel()
        if not gone:
            with contextlib.suppress(TimeoutError):
                await _write(send, b"", more=False)


async def _first(answers: AsyncIterator[WatchClicksResponse]) -> WatchClicksResponse:
    try:
        async with asyncio.timeout(_FIRST_TIMEOUT_S):
            return await anext(answers)
    except TimeoutError as exc:
        raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED.code, "A process did not answer in time.") from exc
    except StopAsyncIteration as exc:
        raise Unavailable(Reason.UNAVAILABLE.code, "The stream ended at once.", retry_after_s=1) from exc


async def _tell(first: WatchClicksResponse, answers: AsyncIterator[WatchClicksResponse], send: Send) -> None:
    """Writes what analytics tells, as slowly as the client reads; returns when either has no more to say."""
    try:
        await _write(send, _HEAD + _events(first))
        async for answer in answers:
            await _write(send, _events(answer))
    except ServiceError as exc:
        with contextlib.suppress(TimeoutError):
            await _write(send, _event("problem", {"code": exc.reason, "detail": exc.message}))
    except TimeoutError:
        pass  # it does not read


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, body: bytes, *, more: bool = True) -> None:
    """Raises TimeoutError if the client takes nothing for long."""
    async with asyncio.timeout(_WRITE_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


def _events(answer: WatchClicksResponse) -> bytes:
    """What analytics told, as events; without news a comment that keeps the connection."""
    found: list[bytes] = []
    if answer.interrupted:
        found.append(_event("interrupted", {}))
    if answer.missed:
        found.append(_event("missed", {"clicks": answer.missed}))
    found += [_event("click", live_click_json(click)) for click in answer.clicks]
    return b"".join(found) or f": counted until {time_or_none(answer.counted_until)}\n\n".encode()


def _event(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
