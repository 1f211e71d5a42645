"""What is told of clicks: of one link, of an account's most followed links, and live."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from chassis.auth import Principal, principal_to_message
from chassis.clock import Clock
from chassis.errors import FieldViolation, InvalidArgument
from contracts.link_codec import timestamp
from contracts.reasons import Reason
from gateway.domain.requests import TimeRange, stats_range
from gateway.handlers.access import Authenticated
from gateway.handlers.link_requests import READ_TIMEOUT_S, existing
from gateway.handlers.live import STREAM_TIMEOUT_S, EventStream, LiveStreams
from gateway.handlers.models import Moment
from gateway.handlers.shapes import stats_json, top_links_json
from gateway.handlers.stats_models import StatsBody, TopLinkList
from shortener.analytics.v1 import analytics_service_pb2 as pb

if TYPE_CHECKING:  # these classes exist for type checkers only
    from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub

Start = Annotated[Moment | None, Query(alias="from")]
End = Annotated[Moment | None, Query(alias="to")]

_GRANULARITIES = {"hour": pb.GRANULARITY_HOUR, "day": pb.GRANULARITY_DAY}
_GROUPS = {
    "country": pb.GROUP_BY_COUNTRY,
    "referrer": pb.GROUP_BY_REFERRER,
    "browser": pb.GROUP_BY_BROWSER,
    "os": pb.GROUP_BY_OS,
    "device": pb.GROUP_BY_DEVICE,
}
_PARAMETERS = {"until": "to", "time_zone": "tz"}  # of the API, where analytics calls them otherwise


def stats_router(
    *, analytics: "AnalyticsServiceAsyncStub", streams: LiveStreams, authenticated: Authenticated, clock: Clock
) -> APIRouter:
    """The routes of clicks."""
    router = APIRouter(prefix="/api", tags=["stats"])

    @router.get("/links/{code}/stats", response_model=StatsBody, summary="Clicks of a link, the present included")
    async def stats(
        code: str,
        start: Start = None,
        end: End = None,
        granularity: Literal["hour", "day"] = "day",
        group_by: Literal["country", "referrer", "browser", "os", "device"] | None = None,
        tz: Annotated[str, Query(max_length=64, description="IANA name of the zone whose days are meant")] = "",
        principal: Principal = authenticated,
    ) -> Response:
        """`from` (30 days before `to`), `to` (now) in RFC 3339, at most 92 days apart. Days are those of `tz` (UTC), a
        zone whole hours away from UTC. Groups count the clicks of people."""
        wanted = _range(start, end, clock)
        request = pb.GetClickStatsRequest(
            principal=principal_to_message(principal),
            short_code=existing(code),
            until=timestamp(wanted.end),
            granularity=_GRANULARITIES[granularity],
            group_by=_GROUPS[group_by] if group_by else pb.GROUP_BY_UNSPECIFIED,
            time_zone=tz,
        )
        getattr(request, "from").CopyFrom(timestamp(wanted.start))  # a keyword of Python
        with _in_the_words_of_the_api():
            return JSONResponse(stats_json(await analytics.GetClickStats(request, timeout=READ_TIMEOUT_S)))

    @router.get(
        "/links/{code}/clicks/live",
        status_code=200,
        response_class=EventStream,
        summary="Clicks of a link as they are counted",
    )
    async def live(code: str, principal: Principal = authenticated) -> Response:
        """Server-sent events `click`, `missed` (clicks left out, since they were not read in time), `interrupted` (some
        may be missing, or come again) and `problem`; comments in between. Ends after 15 minutes at the latest: come
        again. `Last-Event-ID` is not looked at."""
        request = pb.WatchClicksRequest(principal=principal_to_message(principal), short_code=existing(code))
        return EventStream(streams, lambda: analytics.WatchClicks(request, timeout=STREAM_TIMEOUT_S))

    @router.get("/stats/top", response_model=TopLinkList, summary="The account's most followed links")
    async def top(
        start: Start = None,
        end: End = None,
        page_size: Annotated[int, Query(ge=1, le=100)] = 20,
        page_token: Annotated[str, Query(max_length=64)] = "",
        principal: Principal = authenticated,
    ) -> Response:
        """By clicks of people and bots on the whole days (UTC) that the range touches, at most 92 days."""
        wanted = _range(start, end, clock)
        request = pb.ListTopLinksRequest(
            principal=principal_to_message(principal),
            until=timestamp(wanted.end),
            page_size=page_size,
            page_token=page_token,
        )
        getattr(request, "from").CopyFrom(timestamp(wanted.start))
        with _in_the_words_of_the_api():
            return JSONResponse(top_links_json(await analytics.ListTopLinks(request, timeout=READ_TIMEOUT_S)))

    return router


def _range(start: Moment | None, end: Moment | None, clock: Clock) -> TimeRange:
    try:
        return stats_range(start, end, clock.now())
    except ValueError as exc:
        raise InvalidArgument(Reason.INVALID_FIELD.code, str(exc)) from exc


@contextlib.contextmanager
def _in_the_words_of_the_api() -> Iterator[None]:
    """Names a field at fault as the query's parameter that it came from."""
    try:
        yield
    except InvalidArgument as exc:
        fields = tuple(FieldViolation(_PARAMETERS.get(item.field, item.field), item.description) for item in exc.fields)
        raise InvalidArgument(exc.reason, exc.message, fields=fields) from exc
