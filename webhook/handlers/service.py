"""WebhookService: endpoints and deliveries, for the account a call acts for."""

import functools
from collections.abc import Callable, Collection
from typing import TypeVar
from uuid import UUID

import grpc

from chassis.auth import Plan, principal_of
from chassis.clock import Clock
from chassis.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unavailable,
)
from chassis.grpc_interceptor import Context
from chassis.grpc_server import Service
from contracts.link import EventId, UserId
from contracts.link_codec import timestamp
from contracts.reasons import Reason
from contracts.scopes import WEBHOOKS_MANAGE
from shortener.webhook.v1 import webhook_service_pb2 as pb
from shortener.webhook.v1 import webhook_service_pb2_grpc as pb_grpc
from webhook.domain.deliveries import Delivery, DeliveryState
from webhook.domain.endpoints import (
    Account,
    Endpoint,
    EndpointId,
    Refusal,
    add_endpoint,
    check_draft,
    remove_endpoint,
)
from webhook.domain.signature import secret_of
from webhook.ports import DeliveryStore, EndpointStore

Granted = TypeVar("Granted")
_TRIES = 5  # of a change that lost a race against another of the same account
_PAGE_SIZE, _PAGE_SIZE_MAX = 50, 100
_KINDS: dict[Reason, type[ServiceError]] = {
    Reason.PLAN_REQUIRED: PermissionDenied,
    Reason.ENDPOINT_LIMIT: FailedPrecondition,
    Reason.ENDPOINT_NOT_FOUND: NotFound,
}
_STATES = {
    DeliveryState.PENDING: pb.DELIVERY_STATE_PENDING,
    DeliveryState.DELIVERED: pb.DELIVERY_STATE_DELIVERED,
    DeliveryState.FAILED: pb.DELIVERY_STATE_FAILED,
}


class WebhookServicer(pb_grpc.WebhookServiceServicer):
    """The calls of WebhookService. `new_id` and `new_entropy` (24 bytes) are the sources of chance."""

    def __init__(
        self,
        endpoints: EndpointStore,
        deliveries: DeliveryStore,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        new_entropy: Callable[[], bytes],
        http_hosts: Collection[str],
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._clock = clock
        self._new_id = new_id
        self._new_entropy = new_entropy
        self._http_hosts = http_hosts

    async def CreateEndpoint(  # noqa: N802 (the name is gRPC's)
        self, request: pb.CreateEndpointRequest, _context: Context
    ) -> pb.CreateEndpointResponse:
        """Adds an endpoint; its secret is in this answer and in no other."""
        principal = principal_of(request.principal, WEBHOOKS_MANAGE)
        is_premium = principal.plan is Plan.PREMIUM
        draft = _granted(
            check_draft(request.url, request.event_types, is_premium=is_premium, http_hosts=self._http_hosts)
        )
        now = self._clock.now()
        endpoint = Endpoint(
            endpoint_id=EndpointId(self._new_id()),
            user_id=UserId(principal.user_id),
            url=draft.url,
            secret=secret_of(self._new_entropy()),
            event_types=draft.event_types,
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),  # the broker's clock has milliseconds
        )
        await self._change(endpoint.user_id, functools.partial(add_endpoint, endpoint=endpoint))
        return pb.CreateEndpointResponse(endpoint=_endpoint_to_message(endpoint), secret=endpoint.secret)

    async def ListEndpoints(  # noqa: N802 (the name is gRPC's)
        self, request: pb.ListEndpointsRequest, _context: Context
    ) -> pb.ListEndpointsResponse:
        """The account's endpoints, without secrets."""
        account = await self._account(principal_of(request.principal, WEBHOOKS_MANAGE).user_id)
        return pb.ListEndpointsResponse(endpoints=[_endpoint_to_message(item) for item in account.endpoints])

    async def DeleteEndpoint(  # noqa: N802 (the name is gRPC's)
        self, request: pb.DeleteEndpointRequest, _context: Context
    ) -> pb.DeleteEndpointResponse:
        """Removes an endpoint; what is still to be delivered to it is given up when it is due."""
        principal = principal_of(request.principal, WEBHOOKS_MANAGE)
        remove = functools.partial(remove_endpoint, endpoint_id=request.endpoint_id)
        await self._change(UserId(principal.user_id), remove)
        return pb.DeleteEndpointResponse()

    async def ListDeliveries(  # noqa: N802 (the name is gRPC's)
        self, request: pb.ListDeliveriesRequest, _context: Context
    ) -> pb.ListDeliveriesResponse:
        """What was delivered to an endpoint, newest event first. The page token is the last event of a page."""
        principal = principal_of(request.principal, WEBHOOKS_MANAGE)
        size = _page_size(request.page_size)
        before = _event_of_token(request.page_token)
        endpoint = (await self._account(principal.user_id)).find(request.endpoint_id)
        if endpoint is None:
            raise NotFound(Reason.ENDPOINT_NOT_FOUND.code, "There is no such endpoint.")
        found = await self._deliveries.newest(endpoint.endpoint_id, before=before, limit=size + 1)
        page = found[:size]
        token = page[-1].event_id if len(found) > size else ""
        return pb.ListDeliveriesResponse(
            deliveries=[_delivery_to_message(item) for item in page], next_page_token=token
        )

    async def _account(self, user_id: str) -> Account:
        owner = UserId(user_id)
        return (await self._endpoints.of_accounts([owner]))[owner]

    async def _change(self, user_id: UserId, decide: Callable[[Account], Account | Refusal]) -> None:
        """Reads, decides and saves; again if somebody else was faster."""
        for _ in range(_TRIES):
            changed = _granted(decide(await self._account(user_id)))
            if await self._endpoints.save(changed):
                return
        raise Unavailable(Reason.UNAVAILABLE.code, "The account's endpoints are being changed.", retry_after_s=1)


def webhook_service(servicer: WebhookServicer) -> Service:
    """WebhookService for a server, with what each call demands."""

    def add(server: grpc.aio.Server) -> None:
        pb_grpc.add_WebhookServiceServicer_to_server(servicer, server)

    descriptor = pb.DESCRIPTOR.services_by_name["WebhookService"]
    return Service(descriptor, add, {method.name: WEBHOOKS_MANAGE for method in descriptor.methods})


def _granted(verdict: Granted | Refusal) -> Granted:
    """What was granted.

    Raises:
        ServiceError: it was refused; of the kind that stands for the reason.
    """
    if not isinstance(verdict, Refusal):
        return verdict
    fields = (FieldViolation(verdict.field, verdict.sentence),) if verdict.field else ()
    raise _KINDS.get(verdict.reason, InvalidArgument)(verdict.reason.code, verdict.sentence, fields=fields)


def _page_size(wanted: int) -> int:
    return min(wanted, _PAGE_SIZE_MAX) if wanted > 0 else _PAGE_SIZE


def _event_of_token(token: str) -> EventId | None:
    if not token:
        return None
    try:
        return EventId(str(UUID(token)))
    except ValueError as exc:
        violation = FieldViolation("page_token", "This is not a token of a previous answer.")
        raise InvalidArgument(Reason.INVALID_FIELD.code, violation.description, fields=(violation,)) from exc


def _endpoint_to_message(endpoint: Endpoint) -> pb.Endpoint:
    return pb.Endpoint(
        endpoint_id=endpoint.endpoint_id,
        user_id=endpoint.user_id,
        url=endpoint.url,
        event_types=endpoint.event_types,
        enabled=endpoint.enabled,
        created_at=timestamp(endpoint.created_at),
    )


def _delivery_to_message(delivery: Delivery) -> pb.Delivery:
    message = pb.Delivery(
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type.value,
        state=_STATES[delivery.state],
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        short_code=delivery.short_code,
    )
    if delivery.next_at is not None:
        message.next_attempt_at.CopyFrom(timestamp(delivery.next_at))
    return message
