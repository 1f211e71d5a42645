"""POST /api/links:batch: many links in one request, each of which stands for itself."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from google.protobuf.duration_pb2 import Duration
from pydantic import ValidationError

from chassis.auth import Principal
from chassis.clock import Clock
from chassis.errors import ServiceError, Unavailable
from chassis.item_problems import error_of
from chassis.telemetry import current_trace_id, current_traceparent
from contracts.link import link_key
from contracts.link_codec import link_from_message
from contracts.link_json import Json, link_json
from contracts.reasons import Reason
from gateway.domain.problems import Problem, body_of
from gateway.handlers.access import Authenticated
from gateway.handlers.answers import problem_of
from gateway.handlers.link_requests import MUTATION_TIMEOUT_S, IdempotencyKey, create_request
from gateway.handlers.models import LinkResults, NewLink, NewLinks
from gateway.handlers.mutations import told_outcome
from gateway.handlers.validation import item_problem
from gateway.ports import Resolver
from shortener.link.v1 import link_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub

_TIMEOUT_S = 2 * MUTATION_TIMEOUT_S  # items end by themselves before, so that each is told what became of it


def link_batches_router(
    *, links: "LinkServiceAsyncStub", resolver: Resolver, authenticated: Authenticated, public_url: str, clock: Clock
) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["links"])

    @router.post("/api/links:batch", response_model=LinkResults, summary="Make up to 100 links")
    async def create_batch(
        body: NewLinks, idempotency_key: IdempotencyKey = "", principal: Principal = authenticated
    ) -> Response:
        """One result per link, in order: the link, or the problem that POST /api/links would have answered. The same
        Idempotency-Key within 24 h gives the same links."""
        asked = [
            _asked(item, principal, _key_of(idempotency_key, place) if idempotency_key else "")
            for place, item in enumerate(body.links)
        ]
        requests = [item for item in asked if isinstance(item, pb.BatchedCreateLink)]
        made = iter(await _create(links, requests))
        results: list[Json] = []
        for item in asked:
            problem = item if isinstance(item, Problem) else _problem_of(result := next(made))
            if problem is not None:
                results.append({"problem": body_of(problem, current_trace_id())})
            else:
                link = link_from_message(result.link)
                resolver.forget(link_key(link.short_code))
                results.append({"link": link_json(link, public_url=public_url, at=clock.now())})
        return JSONResponse({"results": results})

    return router


async def _create(
    links: "LinkServiceAsyncStub", items: Sequence[pb.BatchedCreateLink]
) -> Sequence[pb.BatchedCreateLinkResult]:
    if not items:
        return ()
    with told_outcome():
        response = await links.BatchCreateLinks(pb.BatchCreateLinksRequest(items=items), timeout=_TIMEOUT_S)
    if len(response.results) != len(items):
        raise Unavailable(Reason.OUTCOME_UNKNOWN.code, "The answer got lost; look before you repeat.")
    return response.results


def _asked(item: object, principal: Principal, key: str) -> pb.BatchedCreateLink | Problem:
    """What is asked for one of the links; or what is wrong with its JSON, which is no other's affair."""
    try:
        wanted = NewLink.model_validate(item)
    except ValidationError as exc:
        return item_problem(exc.errors())
    return pb.BatchedCreateLink(
        request=create_request(wanted, principal, key),
        traceparent=current_traceparent() or "",
        time_left=Duration(seconds=int(MUTATION_TIMEOUT_S)),
    )


def _key_of(idempotency_key: str, place: int) -> str:
    """The idempotency key of one of many: as long whatever the client's is, and nobody's by accident."""
    return "batch-" + hashlib.sha256(f"{place} {idempotency_key}".encode()).hexdigest()


def _problem_of(result: pb.BatchedCreateLinkResult) -> Problem | None:
    if result.HasField("link"):
        return None
    try:
        with told_outcome():
            raise error_of(result.problem)
    except ServiceError as exc:
        return problem_of(exc)
