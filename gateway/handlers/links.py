"""/api/links: create, read, delete, count."""

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from chassis.auth import Principal, principal_to_message
from chassis.clock import Clock
from chassis.errors import FieldViolation, InvalidArgument
from contracts.link import link_key
from contracts.link_codec import timestamp
from contracts.reasons import Reason
from gateway.domain.requests import stats_range
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
from gateway.handlers.models import LinkBody, Moment, NewLink, StatsBody
from gateway.handlers.mutations import told_outcome
from gateway.handlers.shapes import stats_json
from gateway.ports import LinkCreator, Resolver
from shortener.analytics.v1 import analytics_service_pb2 as analytics_pb
from shortener.link.v1 import link_service_pb2 as link_service_pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub

_GRANULARITIES = {"hour": analytics_pb.GRANULARITY_HOUR, "day": analytics_pb.GRANULARITY_DAY}


def links_router(
    *,
    links: "LinkServiceAsyncStub",
    analytics: "AnalyticsServiceAsyncStub",
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

    @router.get("/{code}/stats", response_model=StatsBody, summary="Clicks of a link, the present included")
    async def stats(
        code: str,
        start: Annotated[Moment | None, Query(alias="from")] = None,
        end: Annotated[Moment | None, Query(alias="to")] = None,
        granularity: Literal["hour", "day"] = "day",
        group_by: Annotated[str | None, Query(include_in_schema=False)] = None,
        principal: Principal = authenticated,
    ) -> Response:
        """`from` (30 days before `to`), `to` (now) in RFC 3339, at most 92 days apart."""
        if group_by is not None:  # to come; an answer without groups would look as if there were none
            sentence = "Clicks cannot be grouped yet."
            raise InvalidArgument(Reason.INVALID_FIELD.code, sentence, fields=(FieldViolation("group_by", sentence),))
        try:
            wanted = stats_range(start, end, clock.now())
        except ValueError as exc:
            raise InvalidArgument(Reason.INVALID_FIELD.code, str(exc)) from exc
        request = analytics_pb.GetClickStatsRequest(
            principal=principal_to_message(principal),
            short_code=existing(code),
            until=timestamp(wanted.end),
            granularity=_GRANULARITIES[granularity],
        )
        getattr(request, "from").CopyFrom(timestamp(wanted.start))  # a keyword of Python
        return JSONResponse(stats_json(await analytics.GetClickStats(request, timeout=READ_TIMEOUT_S)))

    return router
