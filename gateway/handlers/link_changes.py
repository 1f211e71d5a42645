"""/api/links: change, restore, history, repair."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.auth import Principal, principal_to_message
from chassis.clock import Clock
from contracts.link import link_key
from contracts.link_codec import changes_from_messages, link_event_from_message, link_from_message, timestamp
from contracts.link_json import changes_json, event_json, link_json
from gateway.handlers.access import Authenticated
from gateway.handlers.link_requests import (
    MUTATION_TIMEOUT_S,
    READ_TIMEOUT_S,
    IdempotencyKey,
    IfMatch,
    existing,
    link_answer,
    version_of,
)
from gateway.handlers.models import EventList, LinkBody, LinkChanges, RebuiltBody
from gateway.handlers.mutations import told_outcome
from gateway.ports import Resolver
from shortener.link.v1 import link_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub


def link_changes_router(
    *, links: "LinkServiceAsyncStub", resolver: Resolver, authenticated: Authenticated, public_url: str, clock: Clock
) -> APIRouter:
    """The routes by which links change, and those that tell how they did."""
    router = APIRouter(prefix="/api/links", tags=["links"])

    @router.patch("/{code}", response_model=LinkBody, summary="Change a link: JSON merge patch (RFC 7396)")
    async def update(
        code: str,
        body: LinkChanges,
        if_match: IfMatch = "",
        idempotency_key: IdempotencyKey = "",
        principal: Principal = authenticated,
    ) -> Response:
        """What is left out stays; null empties. Acts at once. 409 for a deleted link, 412 if If-Match is stale."""
        request = _update_request(existing(code), body)
        request.principal.CopyFrom(principal_to_message(principal))
        request.request_id = idempotency_key
        request.if_version = version_of(if_match)
        try:
            with told_outcome():
                response = await links.UpdateLink(request, timeout=MUTATION_TIMEOUT_S)
        finally:  # also when the outcome is unknown
            resolver.forget(link_key(code))
        return link_answer(response.link, public_url=public_url, at=clock.now())

    @router.post("/{code}:restore", response_model=LinkBody, summary="Bring a deleted link back as it was")
    async def restore(
        code: str, if_match: IfMatch = "", idempotency_key: IdempotencyKey = "", principal: Principal = authenticated
    ) -> Response:
        """A link that is not deleted stays as it is, and is the answer."""
        request = pb.RestoreLinkRequest(
            principal=principal_to_message(principal),
            request_id=idempotency_key,
            short_code=existing(code),
            if_version=version_of(if_match),
        )
        try:
            with told_outcome():
                response = await links.RestoreLink(request, timeout=MUTATION_TIMEOUT_S)
        finally:
            resolver.forget(link_key(code))
        return link_answer(response.link, public_url=public_url, at=clock.now())

    @router.get("/{code}/events", response_model=EventList, summary="The history of a link, newest last")
    async def events(
        code: str,
        page_size: Annotated[int, Query(ge=1, le=100)] = 50,
        page_token: Annotated[str, Query(max_length=2048)] = "",
        principal: Principal = authenticated,
    ) -> Response:
        """The newest events come a moment (mostly 0.1 s) after their change: the history is whole if its last event
        has `current_version`."""
        request = pb.ListLinkEventsRequest(
            principal=principal_to_message(principal),
            short_code=existing(code),
            page_size=page_size,
            page_token=page_token,
        )
        response = await links.ListLinkEvents(request, timeout=READ_TIMEOUT_S)
        items = [event_json(link_event_from_message(item), public_url=public_url) for item in response.events]
        shape = {"items": items, "next_page_token": response.next_page_token}
        return JSONResponse(shape | {"current_version": response.current_version})

    @router.post("/{code}:rebuild", response_model=RebuiltBody, summary="Repair a link's row from its events")
    async def rebuild(code: str, principal: Principal = authenticated) -> Response:
        """Safe to repeat. `changes` tells what was wrong; empty: nothing."""
        request = pb.RebuildLinkRequest(principal=principal_to_message(principal), short_code=existing(code))
        try:
            with told_outcome():
                response = await links.RebuildLink(request, timeout=MUTATION_TIMEOUT_S)
        finally:
            resolver.forget(link_key(code))
        link = link_json(link_from_message(response.link), public_url=public_url, at=clock.now())
        return JSONResponse({"link": link, "changes": changes_json(changes_from_messages(response.changes))})

    return router


def _update_request(code: str, body: LinkChanges) -> pb.UpdateLinkRequest:
    """The update that a merge patch is: exactly the members that were sent are meant."""
    return pb.UpdateLinkRequest(
        short_code=code,
        update_mask=FieldMask(paths=sorted(body.model_fields_set)),
        long_url=body.long_url,
        title=body.title or "",
        tags=body.tags or (),
        expires_at=timestamp(body.expires_at) if body.expires_at else None,
        starts_at=timestamp(body.starts_at) if body.starts_at else None,
        redirect_status=body.redirect_status or 0,
    )
