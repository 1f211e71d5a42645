"""The interceptors of both sides, over a real channel."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc
import pytest

from chassis.api_keys import key_verifier
from chassis.auth import CALLER_HEADER, SECRET_HEADER, Access, Principal, identify, principal_of
from chassis.errors import (
    Aborted,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer, Service
from chassis.health import Readiness
from shortener.key.v1 import key_service_pb2 as pb
from shortener.key.v1 import key_service_pb2_grpc as rpc

SECRET = b"mesh"
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["KeyService"]
POLICIES: dict[str, str | Access] = {"CreateKey": "links:read", "VerifyKey": Access.MESH}
ADA = pb.Principal(user_id="ada", scopes=["links:read"])


class Servicer(rpc.KeyServiceServicer):
    """VerifyKey does what its request's text says; CreateKey tells whom it acts for."""

    async def CreateKey(  # noqa: N802 (the name is the proto's)
        self, request: pb.CreateKeyRequest, context: object
    ) -> pb.CreateKeyResponse:
        """Answers with the principal."""
        return pb.CreateKeyResponse(secret=principal_of(request.principal, "links:read").user_id)

    async def VerifyKey(  # noqa: N802 (the name is the proto's)
        self, request: pb.VerifyKeyRequest, context: object
    ) -> pb.VerifyKeyResponse:
        """Fails as asked."""
        match request.secret:
            case "told":
                raise Aborted(
                    "version_conflict", "Changed.", fields=(FieldViolation("etag", "stale"),), retry_after_s=1.5
                )
            case "secret":
                raise ValueError("secret=42")
            case "slow":
                await asyncio.sleep(30)
        return pb.VerifyKeyResponse(principal=ADA)


async def verify(key: str) -> Principal:
    """One key is known."""
    if key != "lk_good":
        raise Unauthenticated("unauthenticated", "Unknown key.")
    return Principal("grace", frozenset({"links:read"}))


Check = Callable[[int], Awaitable[None]]


def with_server(check: Check, *, policies: dict[str, str | Access] = POLICIES) -> None:
    """Runs a check against a server on a free port, and stops it as a process would."""

    async def run() -> None:
        readiness = Readiness()
        service = Service(DESCRIPTOR, lambda server: rpc.add_KeyServiceServicer_to_server(Servicer(), server), policies)
        server = GrpcServer(
            host="127.0.0.1", port=0, services=[service], readiness=readiness, mesh_secret=SECRET, verify=verify
        )
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(server.run(stop))
            while not readiness.ready:
                await asyncio.sleep(0.01)
            try:
                await check(server.port)
            finally:
                stop.set()

    asyncio.run(run())


async def failure(port: int, text: str, *, process: str = "gateway", secret: bytes = SECRET) -> ServiceError:
    """The error that VerifyKey ends with."""
    async with open_channel(f"127.0.0.1:{port}", peer="link_service", process=process, mesh_secret=secret) as channel:
        with pytest.raises(ServiceError) as caught:
            await rpc.KeyServiceStub(channel).VerifyKey(pb.VerifyKeyRequest(secret=text), timeout=0.5)
    return caught.value


def test_an_error_crosses_the_wire_whole() -> None:
    """Kind, reason, message, fields and Retry-After arrive as they were raised."""

    async def check(port: int) -> None:
        error = await failure(port, "told")

        assert type(error) is Aborted
        assert (error.reason, error.message, error.retry_after_s) == ("version_conflict", "Changed.", 1.5)
        assert error.fields == (FieldViolation("etag", "stale"),)

    with_server(check)


def test_an_unknown_failure_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What we did not mean to say stays with us: the caller sees INTERNAL, the log has the rest."""

    async def check(port: int) -> None:
        error = await failure(port, "secret")

        assert type(error) is Internal
        assert "42" not in error.message

    with caplog.at_level(logging.ERROR):
        with_server(check)
    assert "secret=42" in caplog.text


def test_a_deadline_ends_the_call_on_both_sides() -> None:
    """A handler that is too slow is DeadlineExceeded, and the server stops without waiting for it."""

    async def check(port: int) -> None:
        assert type(await failure(port, "slow")) is DeadlineExceeded

    with_server(check)


def test_a_peer_that_is_not_there_is_unavailable() -> None:
    """A refused connection is a dependency's failure."""

    async def check(_port: int) -> None:
        assert type(await failure(1, "")) is Unavailable

    with_server(check)


def test_our_own_calls_need_a_deadline() -> None:
    """Without one the client refuses to send, and the server refuses to answer."""

    async def check(port: int) -> None:
        request = pb.VerifyKeyRequest()
        async with open_channel(f"127.0.0.1:{port}", peer="x", process="gateway", mesh_secret=SECRET) as channel:
            with pytest.raises(ValueError, match="deadline"):
                await rpc.KeyServiceStub(channel).VerifyKey(request)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = (("linkmesh-caller", "gateway"), ("linkmesh-secret", "mesh"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc.KeyServiceStub(channel).VerifyKey(request, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_server(check)


def test_who_may_call_what(caplog: pytest.LogCaptureFixture) -> None:
    """The mesh secret opens mesh methods; only the gateway states a principal; others come with a Bearer key."""

    async def check(port: int) -> None:
        target = f"127.0.0.1:{port}"
        caplog.clear()
        assert type(await failure(port, "", secret=b"wrong")) is Unavailable  # ours to mend: no key is at fault
        assert "does not take our mesh secret" in caplog.text
        async with grpc.aio.insecure_channel(target) as stranger:
            metadata = (("linkmesh-caller", "gateway"), ("linkmesh-secret", "wrong"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc.KeyServiceStub(stranger).VerifyKey(pb.VerifyKeyRequest(), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stated = pb.CreateKeyRequest(principal=ADA)
        async with open_channel(target, peer="x", process="gateway", mesh_secret=SECRET) as channel:
            assert (await rpc.KeyServiceStub(channel).CreateKey(stated, timeout=1)).secret == "ada"
            with pytest.raises(PermissionDenied):
                await rpc.KeyServiceStub(channel).CreateKey(
                    pb.CreateKeyRequest(principal=pb.Principal(user_id="ada")), timeout=1
                )
        async with open_channel(target, peer="x", process="writer", mesh_secret=SECRET) as channel:
            with pytest.raises(PermissionDenied):
                await rpc.KeyServiceStub(channel).CreateKey(stated, timeout=1)
        async with grpc.aio.insecure_channel(target) as channel:
            stub = rpc.KeyServiceStub(channel)
            good, bad = (("authorization", "Bearer lk_good"),), (("authorization", "Bearer lk_bad"),)
            assert (await stub.CreateKey(pb.CreateKeyRequest(), metadata=good)).secret == "grace"
            for call, status in (
                (stub.CreateKey(stated, metadata=good), grpc.StatusCode.PERMISSION_DENIED),
                (stub.CreateKey(pb.CreateKeyRequest(), metadata=bad), grpc.StatusCode.UNAUTHENTICATED),
                (stub.CreateKey(pb.CreateKeyRequest()), grpc.StatusCode.UNAUTHENTICATED),
                (stub.VerifyKey(pb.VerifyKeyRequest(), metadata=good), grpc.StatusCode.PERMISSION_DENIED),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is status

    with_server(check)


def test_a_key_is_verified_by_the_key_service() -> None:
    """The verdict is the KeyService's principal, or its error."""

    async def check(port: int) -> None:
        async with open_channel(f"127.0.0.1:{port}", peer="x", process="audit", mesh_secret=SECRET) as channel:
            verdict = key_verifier(channel)
            assert await verdict("any") == Principal("ada", frozenset({"links:read"}))
            with pytest.raises(Aborted):
                await verdict("told")

    with_server(check)


def test_a_method_without_a_declared_access_stops_the_server() -> None:
    """Default deny: a new RPC cannot be forgotten."""
    with pytest.raises(ValueError, match="VerifyKey"):
        GrpcServer(
            host="127.0.0.1",
            port=0,
            services=[Service(DESCRIPTOR, lambda _server: None, {"CreateKey": Access.MESH})],
            readiness=Readiness(),
            mesh_secret=SECRET,
        )


def test_a_request_that_is_too_large_is_refused() -> None:
    """Message sizes are bounded."""

    async def check(port: int) -> None:
        error = await failure(port, "x" * (2 << 20))
        assert not isinstance(error, InvalidArgument | Unavailable)

    with_server(check)


def test_a_process_without_a_mesh_secret_knows_no_caller_as_its_own() -> None:
    """No secret configured and none presented are equal, and prove nothing: or anybody could state a principal."""
    for headers in ({CALLER_HEADER: "gateway"}, {CALLER_HEADER: "gateway", SECRET_HEADER: ""}):
        with pytest.raises(Unauthenticated):
            asyncio.run(identify(headers, mesh_secret=b"", verify=None))
