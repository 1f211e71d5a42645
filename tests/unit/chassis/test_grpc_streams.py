"""Streams of answers, over a real channel: guarded as calls are, ended by whoever leaves first."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY

from chassis.auth import Access, Principal, principal_of
from chassis.errors import (
    Aborted,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from chassis.grpc_client import open_channel
from chassis.grpc_interceptor import STREAM_MAX_S, Context
from chassis.grpc_server import GrpcServer, Service
from chassis.health import Readiness
from shortener.key.v1 import key_service_pb2 as key_pb
from tests.fakes.spans import spans_of

SECRET = b"mesh"
WATCH = "/streams.Streams/Watch"
OWN = "/streams.Streams/WatchOwn"
POLICIES: dict[str, str | Access] = {"Watch": "links:read", "WatchOwn": Access.MESH}
GRACE = (("authorization", "Bearer lk_good"),)


class Streams:
    """WatchOwn does what its request's text says; Watch tells for whom it streams."""

    def __init__(self) -> None:
        self.open = 0
        self.written = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """As generated code would."""
        handlers = {
            name: grpc.unary_stream_rpc_method_handler(method, StringValue.FromString, StringValue.SerializeToString)
            for name, method in (("Watch", self.watch), ("WatchOwn", self.watch_own))
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("streams.Streams", handlers),))

    async def watch(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        """Whom it acts for, once."""
        yield StringValue(value=principal_of(key_pb.Principal(), "links:read").user_id)

    async def watch_own(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        """One answer, and then as asked."""
        if request.value == "refused":
            raise InvalidArgument("invalid_field", "No.")
        self.open += 1
        try:
            yield StringValue(value="first")
            match request.value:
                case "told":
                    raise Aborted("version_conflict", "Changed.", fields=(FieldViolation("f", "d"),), retry_after_s=1.5)
                case "secret":
                    raise ValueError("secret=42")
                case "wait":
                    await asyncio.sleep(60)
                case "flood":
                    while True:
                        self.written += 1
                        yield StringValue(value="x" * 10_000)
            yield StringValue(value="last")
        finally:
            self.open -= 1


def descriptor(*, client_streaming: bool = False) -> descriptor_pb2.FileDescriptorProto:
    """The file that declares them."""
    file = descriptor_pb2.FileDescriptorProto(name="streams.proto", package="streams", syntax="proto3")
    file.message_type.add(name="Nothing")
    service = file.service.add(name="Streams")
    for name in POLICIES:
        service.method.add(
            name=name,
            input_type=".streams.Nothing",
            output_type=".streams.Nothing",
            server_streaming=True,
            client_streaming=client_streaming,
        )
    return file


def service_of(streams: Streams, *, client_streaming: bool = False) -> Service:
    """The service and what its methods demand."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor(client_streaming=client_streaming))
    return Service(pool.FindServiceByName("streams.Streams"), streams.add_to, POLICIES)


async def verify(key: str) -> Principal:
    """One key is known."""
    if key != "lk_good":
        raise Unauthenticated("unauthenticated", "Unknown key.")
    return Principal("grace", frozenset({"links:read"}))


class Running:
    """A server, and how to ask it."""

    def __init__(self, port: int, streams: Streams, stop: asyncio.Event) -> None:
        self.target = f"127.0.0.1:{port}"
        self.streams = streams
        self.stop = stop

    async def read(self, text: str, *, timeout_s: float | None = 10.0) -> list[str]:
        """All that WatchOwn tells one of our own processes."""
        async with self.channel() as channel:
            return [answer.value async for answer in begin(channel, OWN, text, timeout_s=timeout_s)]

    def channel(self) -> contextlib.AbstractAsyncContextManager[grpc.aio.Channel]:
        """A channel of one of our own processes."""
        return open_channel(self.target, peer="streams", process="gateway", mesh_secret=SECRET)

    async def all_closed(self) -> None:
        """Returns when no handler is in its stream."""
        async with asyncio.timeout(10):
            while self.streams.open:
                await asyncio.sleep(0.01)


def begin(
    channel: grpc.aio.Channel,
    method: str,
    text: str,
    *,
    timeout_s: float | None,
    metadata: tuple[tuple[str, str], ...] = (),
) -> "grpc.aio.UnaryStreamCall[StringValue, StringValue]":
    """A stream that is about to be read."""
    stub: grpc.aio.UnaryStreamMultiCallable[StringValue, StringValue] = channel.unary_stream(
        method, request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
    )
    return stub(StringValue(value=text), timeout=timeout_s, metadata=metadata)


def with_server(check: Callable[[Running], Awaitable[None]], *, stream_max_s: float = STREAM_MAX_S) -> None:
    """Runs a check against a server on a free port, and stops it as a process would."""

    async def run() -> None:
        readiness, streams, stop = Readiness(), Streams(), asyncio.Event()
        server = GrpcServer(
            host="127.0.0.1",
            port=0,
            services=[service_of(streams)],
            readiness=readiness,
            mesh_secret=SECRET,
            verify=verify,
            stream_max_s=stream_max_s,
        )
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(server.run(stop))
            while not readiness.ready:
                await asyncio.sleep(0.01)
            try:
                await check(Running(server.port, streams, stop))
            finally:
                stop.set()

    asyncio.run(run())


def test_a_stream_arrives_whole() -> None:
    """Every answer in order, then the end; the handler is left."""

    async def check(running: Running) -> None:
        assert await running.read("") == ["first", "last"]
        await running.all_closed()

    with_server(check)


def test_an_error_in_a_stream_crosses_the_wire_whole(caplog: pytest.LogCaptureFixture) -> None:
    """What is raised behind the first answer arrives with kind, reason, fields and Retry-After; what we did not mean
    to say stays with us."""

    async def check(running: Running) -> None:
        with pytest.raises(Aborted) as told:
            await running.read("told")
        assert (told.value.reason, told.value.retry_after_s) == ("version_conflict", 1.5)
        assert told.value.fields == (FieldViolation("f", "d"),)
        with pytest.raises(Internal) as hidden:
            await running.read("secret")
        assert "42" not in hidden.value.message
        with pytest.raises(InvalidArgument):  # before the first answer
            await running.read("refused")

    with caplog.at_level(logging.ERROR):
        with_server(check)
    assert "secret=42" in caplog.text


def test_who_may_read_what() -> None:
    """A stream demands what its method declares: the mesh secret, or a known key; nobody else sees an answer."""

    async def check(running: Running) -> None:
        async with grpc.aio.insecure_channel(running.target) as stranger:
            found = [answer.value async for answer in begin(stranger, WATCH, "", timeout_s=5, metadata=GRACE)]
            assert found == ["grace"]
            for method, metadata, status in (
                (WATCH, (), grpc.StatusCode.UNAUTHENTICATED),
                (WATCH, (("authorization", "Bearer lk_bad"),), grpc.StatusCode.UNAUTHENTICATED),
                (OWN, GRACE, grpc.StatusCode.PERMISSION_DENIED),
                (OWN, (), grpc.StatusCode.PERMISSION_DENIED),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await anext(aiter(begin(stranger, method, "", timeout_s=5, metadata=metadata)))
                assert caught.value.code() is status
        assert running.streams.open == 0

    with_server(check)


def test_our_own_streams_need_a_deadline() -> None:
    """Without one the client refuses to send, and the server refuses to answer."""

    async def check(running: Running) -> None:
        with pytest.raises(ValueError, match="deadline"):
            await running.read("", timeout_s=None)
        async with grpc.aio.insecure_channel(running.target) as channel:
            metadata = (("linkmesh-caller", "gateway"), ("linkmesh-secret", "mesh"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(begin(channel, OWN, "", timeout_s=None, metadata=metadata)))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_server(check)


def test_a_deadline_ends_a_stream_on_both_sides() -> None:
    """The reader is told DeadlineExceeded, and the handler is left."""

    async def check(running: Running) -> None:
        with pytest.raises(DeadlineExceeded):
            await running.read("wait", timeout_s=0.5)
        await running.all_closed()

    with_server(check)


def test_no_deadline_keeps_a_stream_for_ever() -> None:
    """Whoever states weeks, and reads nothing, is let go in time: what a stream holds is others' then."""

    async def check(running: Running) -> None:
        async with running.channel() as channel:
            call = begin(channel, OWN, "flood", timeout_s=1_000_000)
            async for _ in call:
                break
            await running.all_closed()
            call.cancel()

    with_server(check, stream_max_s=1.0)


def test_a_reader_that_leaves_ends_the_handler() -> None:
    """Whether its task is cancelled or it just stops reading: nobody streams to nobody."""

    async def check(running: Running) -> None:
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(running.read("wait"))
            async with asyncio.timeout(10):
                while not running.streams.open:
                    await asyncio.sleep(0.01)
            reader.cancel()
        await running.all_closed()

        async with running.channel() as channel:
            call = begin(channel, OWN, "wait", timeout_s=30)
            async for answer in call:
                assert answer.value == "first"
                break
            call.cancel()
            await running.all_closed()

    with_server(check)


def test_a_slow_reader_is_written_to_slowly() -> None:
    """Answers that are not read do not pile up in the server: it stops at what the connection takes."""

    async def check(running: Running) -> None:
        async with running.channel() as channel:
            call = begin(channel, OWN, "flood", timeout_s=30)
            async for _ in call:
                break
            before = -1
            async with asyncio.timeout(20):
                while running.streams.written != before:  # until a look finds no more than the one before
                    before = running.streams.written
                    await asyncio.sleep(0.5)
            assert 0 < before < 5_000  # of 10 kB each
            call.cancel()
        await running.all_closed()

    with_server(check)


def test_streams_end_when_the_process_stops() -> None:
    """The reader is told to come again, at once and not after the grace; a new stream is refused the same way."""

    async def check(running: Running) -> None:
        loop = asyncio.get_running_loop()
        async with running.channel() as channel:
            call = begin(channel, OWN, "wait", timeout_s=60)
            answers = aiter(call)
            assert (await anext(answers)).value == "first"
            running.stop.set()
            began = loop.time()
            with pytest.raises(Unavailable) as told:
                await anext(answers)
            assert told.value.retry_after_s == 1
            assert loop.time() - began < 8  # the grace of calls is 10 s
        await running.all_closed()

    with_server(check)


def test_a_stream_is_traced_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its span stands below the caller's, with the error's reason; how many are open is a metric."""

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"method": OWN.lstrip("/"), **labels}) or 0.0

    with spans_of(monkeypatch) as spans:

        async def check(running: Running) -> None:
            aborted = value("rpc_server_call_duration_seconds_count", status="ABORTED")
            async with running.channel() as channel:
                call = begin(channel, OWN, "wait", timeout_s=60)
                async for _ in call:
                    assert value("rpc_server_streams") == 1
                    break
                call.cancel()
            await running.all_closed()
            with contextlib.suppress(ServiceError):
                await running.read("told")
            assert value("rpc_server_streams") == 0
            assert value("rpc_server_call_duration_seconds_count", status="ABORTED") == aborted + 1

        with_server(check)
        served = [span for span in spans.finished() if span.kind is SpanKind.SERVER]
        asked = {span.context.span_id for span in spans.finished() if span.kind is SpanKind.CLIENT and span.context}
    assert len(served) == 2
    assert all(span.parent is not None and span.parent.span_id in asked for span in served)
    assert "version_conflict" in [span.attributes.get("error.type") for span in served if span.attributes]


def test_streams_of_requests_are_not_offered() -> None:
    """The interceptor guards calls with one request: a server with others does not start."""
    with pytest.raises(ValueError, match="nothing guards streams of requests: Watch"):
        GrpcServer(
            host="127.0.0.1",
            port=0,
            services=[service_of(Streams(), client_streaming=True)],
            readiness=Readiness(),
            mesh_secret=SECRET,
        )
