"""/api/links: create, read, delete."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from chassis.auth import Principal, principal_to_message
from chassis.clock import Clock
from contracts.link import link_key
from contracts.link_codec import timestamp
from gateway.handlers.access import Authenticated
from gateway.handlers.link_requests import (
    MUTATION_TIMEOUT_S,
    READ_TIMEOUT_S,
    IdempotencyKey,
    IfMatch,
    create_request,
    existing,
    link_answer,
    version_of,
)
from gateway.handlers.models import LinkBody, Moment, NewLink
from gateway.handlers.mutations import told_outcome
from gateway.ports import LinkCreator, Resolver
from shortener.link.v1 import link_service_pb2 as link_service_pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub


def links_router(
    *,
    links: "LinkServiceAsyncStub",
    creator: LinkCreator,
    resolver: Resolver,
    authenticated: Authenticated,
    public_url: str,
    clock: Clock,
) -> APIRouter:
    """The routes of links."""
    router = APIRouter(prefix="/api/links", tags=["links"])

    @router.post("", status_code=201, response_model=LinkBody, summary="Make a link")
    async def create(
        body: NewLink, idempotency_key: IdempotencyKey = "", principal: Principal = authenticated
    ) -> Response:
        """Durable when it answers. The same Idempotency-Key within 24 h gives the same link."""
        with told_outcome():
            link = await creator.create(create_request(body, principal, idempotency_key))
        resolver.forget(link_key(link.short_code))
        return link_answer(link, public_url=public_url, at=clock.now(), status=201)

    @router.get("/{code}", response_model=LinkBody, summary="A link as its owner sees it, deleted ones included")
    async def read(
        code: str, at: Annotated[Moment | None, Query()] = None, principal: Principal = authenticated
    ) -> Response:
        """With `ETag: "<version>"`. With `at`: the link as it was then; 404 before it was made."""
        acting = principal_to_message(principal)
        if at is None:
            now_request = link_service_pb.GetLinkRequest(principal=acting, short_code=existing(code))
            message = (await links.GetLink(now_request, timeout=READ_TIMEOUT_S)).link
        else:
            request = link_service_pb.GetLinkAtRequest(principal=acting, short_code=existing(code), at=timestamp(at))
            message = (await links.GetLinkAt(request, timeout=READ_TIMEOUT_S)).link
        return link_answer(message, public_url=public_url, at=at or clock.now())

    @router.delete("/{code}", status_code=204, summary="End a link: its code answers 410 from now on")
    async def delete(
        code: str,
        if_match: IfMatch = "",
        idempotency_key: IdempotencyKey = "",
        principal: Principal = authenticated,
    ) -> Response:
        """The same answer for a link that was deleted before."""
        request = link_service_pb.DeleteLinkRequest(
            principal=principal_to_message(principal),
            request_id=idempotency_key,
            short_code=existing(code),
            if_version=version_of(if_match),
        )
        try:
            with told_outcome():
                await links.DeleteLink(request, timeout=MUTATION_TIMEOUT_S)
        finally:  # also when the outcome is unknown
            resolver.forget(link_key(code))
        return Response(status_code=204)

    return router
