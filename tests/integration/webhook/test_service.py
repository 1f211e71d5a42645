"""WebhookService over real gRPC, on fake stores: who may do what, and what they are told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from chassis.auth import Plan, Principal, principal_to_message
from chassis.clock import SystemClock, uuid7
from chassis.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from contracts.link import UserId
from contracts.scopes import LINKS_READ, WEBHOOKS_MANAGE
from linkmesh.local.ports import free_port
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.webhook.v1 import webhook_service_pb2 as pb
from shortener.webhook.v1 import webhook_service_pb2_grpc as pb_grpc
from tests.fakes.webhook import FakeDeliveryStore, FakeEndpointStore, make_delivery, make_endpoint
from webhook.domain.deliveries import DeliveryState
from webhook.domain.endpoints import ENDPOINTS_MAX, Account, EndpointId
from webhook.handlers.service import WebhookServicer, webhook_service

ADA = Principal("ada", frozenset({WEBHOOKS_MANAGE}), Plan.PREMIUM)
URL = "https://example.org/hook"
SECRET = b"mesh"


@dataclass
class World:
    """The service, called by a process of the mesh."""

    endpoints: FakeEndpointStore
    deliveries: FakeDeliveryStore
    calls: "pb_grpc.WebhookServiceAsyncStub"

    async def create(self, url: str = URL, *, principal: Principal = ADA, types: tuple[str, ...] = ()) -> str:
        """Creates an endpoint; its id."""
        request = pb.CreateEndpointRequest(principal=principal_to_message(principal), url=url, event_types=types)
        return (await self.calls.CreateEndpoint(request, timeout=5)).endpoint.endpoint_id

    async def refused(self, attempt: Awaitable[object], kind: type[ServiceError]) -> ServiceError:
        """The error of a call that must fail."""
        with pytest.raises(kind) as failure:
            await attempt
        return failure.value


@asynccontextmanager
async def serving(process: str = "gateway") -> AsyncIterator[World]:
    """A server on a free port, and a channel of a process to it."""
    endpoints, deliveries = FakeEndpointStore(), FakeDeliveryStore()
    clock = SystemClock()
    servicer = WebhookServicer(
        endpoints,
        deliveries,
        clock=clock,
        new_id=lambda: uuid7(clock.now()),
        new_entropy=lambda: b"s" * 24,
        http_hosts=("localhost",),
    )
    port, stop = free_port(), asyncio.Event()
    server = GrpcServer(
        host="127.0.0.1",
        port=port,
        services=[webhook_service(servicer)],
        readiness=Readiness(),
        mesh_secret=SECRET,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run(stop))
        try:
            async with open_channel(
                f"127.0.0.1:{port}", peer="webhook", process=process, mesh_secret=SECRET
            ) as channel:
                async with asyncio.timeout(10):
                    await channel.channel_ready()
                yield World(endpoints, deliveries, pb_grpc.WebhookServiceStub(channel))
        finally:
            stop.set()


def run(check: Callable[[World], Coroutine[None, None, None]], process: str = "gateway") -> None:
    """Runs a check against a server."""

    async def scenario() -> None:
        async with serving(process) as world:
            await check(world)

    asyncio.run(scenario())


def test_an_endpoint_is_created_listed_and_deleted() -> None:
    """The secret is in the answer to its creation and nowhere else; each account sees its own."""

    async def check(world: World) -> None:
        ada = principal_to_message(ADA)
        made = await world.calls.CreateEndpoint(
            pb.CreateEndpointRequest(principal=ada, url="https://EXAMPLE.org/hook#x", event_types=["link.deleted"]),
            timeout=5,
        )
        assert made.secret.startswith("whsec_")
        assert (made.endpoint.url, list(made.endpoint.event_types)) == (URL, ["link.deleted"])
        assert made.endpoint.enabled

        listed = await world.calls.ListEndpoints(pb.ListEndpointsRequest(principal=ada), timeout=5)
        assert list(listed.endpoints) == [made.endpoint]
        bob = principal_to_message(replace(ADA, user_id="bob"))
        assert not (await world.calls.ListEndpoints(pb.ListEndpointsRequest(principal=bob), timeout=5)).endpoints

        delete = pb.DeleteEndpointRequest(principal=bob, endpoint_id=made.endpoint.endpoint_id)
        error = await world.refused(world.calls.DeleteEndpoint(delete, timeout=5), NotFound)
        assert error.reason == "endpoint_not_found"
        delete.principal.CopyFrom(ada)
        await world.calls.DeleteEndpoint(delete, timeout=5)
        assert not (await world.calls.ListEndpoints(pb.ListEndpointsRequest(principal=ada), timeout=5)).endpoints

    run(check)


def test_refusals_name_their_reason_and_store_nothing() -> None:
    """A free plan, a missing scope, no principal, bad URLs, unknown types, a 21st endpoint."""

    async def check(world: World) -> None:
        free = await world.refused(world.create(principal=replace(ADA, plan=Plan.FREE)), PermissionDenied)
        assert free.reason == "plan_required"
        scope = await world.refused(
            world.create(principal=replace(ADA, scopes=frozenset({LINKS_READ}))), PermissionDenied
        )
        assert scope.reason == "permission_denied"
        nobody = await world.refused(
            world.calls.ListEndpoints(pb.ListEndpointsRequest(principal=key_pb.Principal()), timeout=5),
            Unauthenticated,
        )
        assert nobody.reason == "unauthenticated"
        url = await world.refused(world.create("http://example.org/"), InvalidArgument)
        assert (url.reason, [item.field for item in url.fields]) == ("invalid_webhook_url", ["url"])
        types = await world.refused(world.create(types=("link.clicked",)), InvalidArgument)
        assert (types.reason, [item.field for item in types.fields]) == ("invalid_field", ["event_types"])
        assert (await world.endpoints.of_accounts([UserId("ada")]))[UserId("ada")] == Account(UserId("ada"))

        for _ in range(ENDPOINTS_MAX):
            await world.create("http://localhost:9/hook")
        full = await world.refused(world.create(), FailedPrecondition)
        assert full.reason == "endpoint_limit"

    run(check)


def test_only_the_gateway_may_state_a_principal() -> None:
    """Another process of the mesh cannot act for an account by saying so."""

    async def check(world: World) -> None:
        error = await world.refused(world.create(), PermissionDenied)
        assert error.reason == "permission_denied"

    run(check, process="writer")


def test_creations_side_by_side_are_all_kept() -> None:
    """A lost race is repeated against what the winner stored; a database that is away is told as such."""

    async def check(world: World) -> None:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(world.create()) for _ in range(5)]
        stored = (await world.endpoints.of_accounts([UserId("ada")]))[UserId("ada")]
        assert {item.endpoint_id for item in stored.endpoints} == {task.result() for task in made}

        world.endpoints.away = 1
        error = await world.refused(world.create(), Unavailable)
        assert error.retry_after_s == 1

    run(check)


def test_deliveries_are_listed_in_pages() -> None:
    """Newest first, with what came of them; pages meet without a gap; others' endpoints are not found."""

    async def check(world: World) -> None:
        endpoint_id = await world.create()
        endpoint = make_endpoint(endpoint_id)
        clock = SystemClock()
        ids = sorted(uuid7(clock.now()) for _ in range(5))
        rows = [make_delivery(event_id, endpoint) for event_id in ids]
        rows[4] = replace(rows[4], state=DeliveryState.DELIVERED, attempts=2, last_status=204, next_at=None)
        await world.deliveries.add(rows)

        def request(token: str = "", *, size: int = 3, of: str = endpoint_id) -> pb.ListDeliveriesRequest:
            return pb.ListDeliveriesRequest(
                principal=principal_to_message(ADA), endpoint_id=of, page_size=size, page_token=token
            )

        first = await world.calls.ListDeliveries(request(), timeout=5)
        rest = await world.calls.ListDeliveries(request(first.next_page_token), timeout=5)
        found = [*first.deliveries, *rest.deliveries]
        assert [item.event_id for item in found] == ids[::-1]
        assert rest.next_page_token == ""
        assert (found[0].state, found[0].attempts, found[0].last_status) == (pb.DELIVERY_STATE_DELIVERED, 2, 204)
        assert not found[0].HasField("next_attempt_at")
        assert (found[1].state, found[1].HasField("next_attempt_at")) == (pb.DELIVERY_STATE_PENDING, True)
        assert len((await world.calls.ListDeliveries(request(size=0), timeout=5)).deliveries) == 5

        bad = await world.refused(world.calls.ListDeliveries(request("token"), timeout=5), InvalidArgument)
        assert [item.field for item in bad.fields] == ["page_token"]
        await world.refused(world.calls.ListDeliveries(request(of=EndpointId("other")), timeout=5), NotFound)

    run(check)
