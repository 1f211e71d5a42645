"""/api/webhooks: who is told, and what became of it."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from chassis.auth import Principal, principal_to_message
from gateway.handlers.access import Authenticated
from gateway.handlers.models import CreatedEndpointBody, DeliveryList, EndpointList, NewEndpoint
from gateway.handlers.mutations import told_outcome
from gateway.handlers.shapes import delivery_json, endpoint_json
from shortener.webhook.v1 import webhook_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.webhook.v1.webhook_service_pb2_grpc import WebhookServiceAsyncStub

MUTATION_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 1.0


def webhooks_router(*, webhooks: "WebhookServiceAsyncStub", authenticated: Authenticated) -> APIRouter:
    """The routes of webhooks."""
    router = APIRouter(prefix="/api/webhooks", tags=["webhooks"])

    @router.post("", status_code=201, response_model=CreatedEndpointBody, summary="Add an endpoint")
    async def create(body: NewEndpoint, principal: Principal = authenticated) -> Response:
        """The secret that signs deliveries is shown this once."""
        request = pb.CreateEndpointRequest(
            principal=principal_to_message(principal), url=body.url, event_types=body.event_types
        )
        with told_outcome():
            response = await webhooks.CreateEndpoint(request, timeout=MUTATION_TIMEOUT_S)
        location = f"/api/webhooks/{response.endpoint.endpoint_id}"
        shape = endpoint_json(response.endpoint) | {"secret": response.secret}
        return JSONResponse(shape, 201, {"location": location})

    @router.get("", response_model=EndpointList, summary="The account's endpoints")
    async def list_endpoints(principal: Principal = authenticated) -> Response:
        """All of them, at most 20."""
        request = pb.ListEndpointsRequest(principal=principal_to_message(principal))
        response = await webhooks.ListEndpoints(request, timeout=READ_TIMEOUT_S)
        return JSONResponse({"items": [endpoint_json(item) for item in response.endpoints], "next_page_token": ""})

    @router.delete("/{endpoint_id}", status_code=204, summary="Remove an endpoint and stop its deliveries")
    async def delete(endpoint_id: str, principal: Principal = authenticated) -> Response:
        """Nothing is sent to it any more."""
        request = pb.DeleteEndpointRequest(principal=principal_to_message(principal), endpoint_id=endpoint_id)
        with told_outcome():
            await webhooks.DeleteEndpoint(request, timeout=MUTATION_TIMEOUT_S)
        return Response(status_code=204)

    @router.get("/{endpoint_id}/deliveries", response_model=DeliveryList, summary="What was delivered and what was not")
    async def deliveries(
        endpoint_id: str,
        page_size: Annotated[int, Query(ge=1, le=100)] = 50,
        page_token: Annotated[str, Query(max_length=2048)] = "",
        principal: Principal = authenticated,
    ) -> Response:
        """Newest first."""
        request = pb.ListDeliveriesRequest(
            principal=principal_to_message(principal),
            endpoint_id=endpoint_id,
            page_size=page_size,
            page_token=page_token,
        )
        response = await webhooks.ListDeliveries(request, timeout=READ_TIMEOUT_S)
        items = [delivery_json(item) for item in response.deliveries]
        return JSONResponse({"items": items, "next_page_token": response.next_page_token})

    return router
