"""The REST API: FastAPI with our errors, our documentation page, and nothing of its own on the wire."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from chassis.clock import Clock
from chassis.errors import ServiceError
from chassis.http_server import Scope
from chassis.telemetry import current_trace_id
from contracts.reasons import Reason
from gateway.domain.problems import MEDIA_TYPE, Problem
from gateway.handlers.access import authenticate_by
from gateway.handlers.answers import INTERNAL, Answer, problem_answer, problem_of
from gateway.handlers.audit import audit_router
from gateway.handlers.keys import keys_router
from gateway.handlers.link_batches import link_batches_router
from gateway.handlers.link_changes import link_changes_router
from gateway.handlers.links import links_router
from gateway.handlers.live import LiveStreams
from gateway.handlers.models import ProblemBody
from gateway.handlers.stats import stats_router
from gateway.handlers.validation import validation_problem
from gateway.handlers.webhooks import webhooks_router
from gateway.ports import Keys, LinkCreator, Resolver

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub
    from shortener.audit.v1.audit_service_pb2_grpc import AuditServiceAsyncStub
    from shortener.key.v1.key_service_pb2_grpc import KeyServiceAsyncStub
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub
    from shortener.webhook.v1.webhook_service_pb2_grpc import WebhookServiceAsyncStub

VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The other processes, each by its generated client."""

    links: "LinkServiceAsyncStub"
    keys: "KeyServiceAsyncStub"
    analytics: "AnalyticsServiceAsyncStub"
    webhooks: "WebhookServiceAsyncStub"
    audit: "AuditServiceAsyncStub"


def make_api(
    *,
    peers: Peers,
    keys: Keys,
    creator: LinkCreator,
    resolver: Resolver,
    public_url: str,
    clock: Clock,
    streams: LiveStreams | None = None,
) -> FastAPI:
    """The app that answers /api and /openapi.json. `streams`: who ends live streams when the process stops."""
    streams = streams or LiveStreams()
    app = FastAPI(
        title="Linkmesh",
        version=VERSION,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; ours does not
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": ProblemBody, "description": "A problem"}},
        # Spans and metrics are ours (gateway/handlers/front.py); FastAPI's own would record messages of exceptions.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    authenticated = Depends(authenticate_by(keys))
    routers = [
        links_router(
            links=peers.links,
            creator=creator,
            resolver=resolver,
            authenticated=authenticated,
            public_url=public_url,
            clock=clock,
        ),
        link_changes_router(
            links=peers.links, resolver=resolver, authenticated=authenticated, public_url=public_url, clock=clock
        ),
        link_batches_router(
            links=peers.links, resolver=resolver, authenticated=authenticated, public_url=public_url, clock=clock
        ),
        stats_router(analytics=peers.analytics, streams=streams, authenticated=authenticated, clock=clock),
        webhooks_router(webhooks=peers.webhooks, authenticated=authenticated),
        audit_router(audit=peers.audit, authenticated=authenticated),
        keys_router(keys=peers.keys, authenticated=authenticated),
    ]
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _http_error_handler(routers))
    app.add_exception_handler(Exception, _on_unexpected)
    _describe_problems(app.openapi())
    return app


def _describe_problems(openapi: dict[str, Any]) -> None:
    """Gives problems their media type in the description, where FastAPI says that of the answer."""
    for operation in (operation for path in openapi["paths"].values() for operation in path.values()):
        answer = operation["responses"]["default"]
        (problem,) = answer["content"].values()
        answer["content"] = {MEDIA_TYPE: problem}


async def _on_service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError), "registered for these"
    return _tell(problem_of(error))


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for these"
    return _tell(validation_problem(error.errors()))


def _http_error_handler(routers: Sequence[APIRouter]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for these"
        match error.status_code:
            case 404:
                return _tell(Problem(Reason.NOT_FOUND))
            case 405:
                return _tell(Problem(Reason.METHOD_NOT_ALLOWED, allow=_methods(routers, request.scope)))
            case _:
                return _tell(Problem(Reason.MALFORMED_REQUEST, "The body cannot be read as JSON."))

    return on_http_error


async def _on_unexpected(_request: Request, _error: Exception) -> Response:
    return _tell(INTERNAL)  # Starlette raises it again behind this answer; the front logs it there


def _methods(routers: Sequence[APIRouter], scope: Scope) -> tuple[str, ...]:
    """The methods that the path does have, over all routes (Starlette names only those of the first)."""
    found: set[str] = set()
    for route in (route for router in routers for route in router.routes):
        if isinstance(route, APIRoute) and route.matches(scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return tuple(sorted(found)) or ("GET", "HEAD")  # /openapi.json is the only other one


def _tell(problem: Problem) -> Response:
    return response_of(problem_answer(problem, current_trace_id()))


def response_of(answer: Answer) -> Response:
    """An answer as Starlette's."""
    response = Response(answer.body, answer.status)
    response.raw_headers = list(answer.headers)
    return response
