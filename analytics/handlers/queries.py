"""The service of analytics: decode, find the present counts, encode."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from analytics.domain.book import Book
from analytics.domain.stats import groups, possible_hours, summarise
from analytics.domain.top import days_of, rank
from analytics.handlers.messages import (
    instant,
    partition_message,
    row_message,
    spool_messages,
    stats_message,
    told_message,
    top_row_message,
)
from analytics.handlers.present import Present
from analytics.handlers.questions import (
    dimension_of,
    find_own,
    granularity_of,
    hours_of,
    invalid,
    page_of,
    zone_of,
)
from analytics.handlers.reconciling import Reconciling, own_spools
from analytics.handlers.watching import OwnedWatches, Watches
from analytics.ports import Links
from chassis.auth import principal_of
from chassis.clock import Clock
from chassis.grpc_interceptor import Context
from contracts.link import LinkKey, UserId, link_key
from contracts.scopes import OPERATE, STATS_READ
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceServicer

_HOURS_MAX = 92 * 24 + 2
_HOUR_S = 3600


class AnalyticsService(AnalyticsServiceServicer):
    """What accounts and operators ask; the method names are those of the proto."""

    def __init__(
        self,
        owned: "OwnedService",
        *,
        links: Links,
        present: Present,
        watches: Watches,
        reconciling: Reconciling,
        clock: Clock,
    ) -> None:
        self._owned = owned
        self._links = links
        self._present = present
        self._watches = watches
        self._reconciling = reconciling
        self._clock = clock

    async def GetClickStats(self, request: pb.GetClickStatsRequest, context: Context) -> pb.GetClickStatsResponse:  # noqa: ARG002, N802
        """Counts of one link, the present included."""
        principal = principal_of(request.principal, STATS_READ)
        now_ms = self._now_ms()
        hours, granularity, dimension = hours_of(request, now_ms), granularity_of(request), dimension_of(request)
        zone = zone_of(request, granularity, hours)
        link = await find_own(self._links, request.short_code, request.domain, principal)

        key = link_key(request.short_code, request.domain)
        found = await self._present.read(key, possible_hours(hours, created_ms=link.created_ms, now_ms=now_ms))
        answer = stats_message(summarise(found.rows, granularity, zone), request.short_code, found.counted_until_ms)
        if dimension is not None:
            grouped = groups(found.rows, dimension)
            answer.groups.extend(pb.ClickGroup(value=group.value, clicks=group.clicks) for group in grouped)
        return answer

    async def ListTopLinks(self, request: pb.ListTopLinksRequest, context: Context) -> pb.ListTopLinksResponse:  # noqa: ARG002, N802
        """An account's most followed links, the present included."""
        principal = principal_of(request.principal, STATS_READ)
        days, page = days_of(hours_of(request, self._now_ms())), page_of(request)

        found = await self._present.read_tops(UserId(principal.user_id), days)
        ranking = rank(found.rows)

        answer = pb.ListTopLinksResponse(
            counted_until=instant(found.counted_until_ms),
            other_clicks=ranking.other,
            next_page_token=str(page.stop) if page.stop < len(ranking.links) else "",
        )
        for key, clicks in ranking.links[page.start : page.stop]:
            domain, _, short_code = key.rpartition("/")
            answer.links.add(short_code=short_code, domain=domain, clicks=clicks)
        return answer

    async def WatchClicks(  # noqa: N802
        self,
        request: pb.WatchClicksRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncGenerator[pb.WatchClicksResponse, None]:
        """Clicks of a link as they are counted."""
        principal = principal_of(request.principal, STATS_READ)
        link = await find_own(self._links, request.short_code, request.domain, principal)
        key = link_key(request.short_code, request.domain)
        async with aclosing(self._watches.watch(key, link.user_id)) as stream:
            async for told in stream:
                yield told_message(told)

    async def ReconcileClicks(self, request: pb.ReconcileClicksRequest, context: Context) -> pb.ReconcileClicksResponse:  # noqa: ARG002, N802
        """Whether all that was recorded has been counted."""
        principal_of(request.principal, OPERATE)
        return await self._reconciling.page(request.page_size, request.page_token)

    async def ReadOwnedRows(self, request: pb.ReadOwnedRowsRequest, context: Context) -> pb.ReadOwnedRowsResponse:  # noqa: ARG002, N802
        """The rows of a link in this process' memory, for another instance."""
        return self._owned.rows(request)

    async def ReadOwnedTopLinks(  # noqa: N802
        self,
        request: pb.ReadOwnedTopLinksRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ReadOwnedTopLinksResponse:
        """The rows of an account's top links in this process' memory, for another instance."""
        return self._owned.top_links(request)

    async def ReadOwnedSpools(self, request: pb.ReadOwnedSpoolsRequest, context: Context) -> pb.ReadOwnedSpoolsResponse:  # noqa: ARG002, N802
        """What this process knows of the spools of a partition, for another instance."""
        return self._owned.spools(request)

    async def WatchOwnedClicks(  # noqa: N802
        self,
        request: pb.WatchOwnedClicksRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncGenerator[pb.WatchOwnedClicksResponse, None]:
        """What this process counts of a link, for another instance."""
        async with aclosing(self._owned.watch(request)) as stream:
            async for told in stream:
                yield told

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class OwnedService:
    """What this process has in memory, for other instances. It asks nobody."""

    def __init__(self, book: Book, *, present: Present, watches: OwnedWatches) -> None:
        self._book = book
        self._present = present
        self._watches = watches

    def rows(self, request: pb.ReadOwnedRowsRequest) -> pb.ReadOwnedRowsResponse:
        """The rows of a link."""
        partition = request.partition
        if partition not in self._book.held:
            return pb.ReadOwnedRowsResponse(owned=False)
        hours = range(getattr(request, "from").seconds // _HOUR_S, request.until.seconds // _HOUR_S)
        if len(hours) > _HOURS_MAX:
            raise invalid("until", "The range is too long.")
        rows = self._book.read(LinkKey(request.link_key), partition, hours)
        return pb.ReadOwnedRowsResponse(
            owned=True,
            rows=[row_message(row) for row in rows],
            counted_until=instant(self._book.counted_until_ms(partition)),
        )

    def top_links(self, request: pb.ReadOwnedTopLinksRequest) -> pb.ReadOwnedTopLinksResponse:
        """The rows of an account's top links, of all partitions that are ours."""
        day_s = 24 * _HOUR_S
        days = range(getattr(request, "from").seconds // day_s, request.until.seconds // day_s)
        if len(days) > _HOURS_MAX:
            raise invalid("until", "The range is too long.")
        answer = pb.ReadOwnedTopLinksResponse()
        for partition, top in self._present.own_tops(UserId(request.user_id), days).items():
            answer.partitions.add(partition=partition, owned=True, counted_until=instant(top.counted_until_ms))
            answer.rows.extend(top_row_message(row) for row in top.rows)
        return answer

    def spools(self, request: pb.ReadOwnedSpoolsRequest) -> pb.ReadOwnedSpoolsResponse:
        """The spools of a partition behind one of them."""
        found = own_spools(self._book, request.partition, request.after_spool_id, request.page_size)
        if found is None:
            return pb.ReadOwnedSpoolsResponse()
        return pb.ReadOwnedSpoolsResponse(
            partition=partition_message(request.partition, found, owned=True),
            spools=spool_messages(request.partition, found.spools),
        )

    async def watch(self, request: pb.WatchOwnedClicksRequest) -> AsyncGenerator[pb.WatchOwnedClicksResponse, None]:
        """What is counted of a link from now on; one empty message if its partition is not ours."""
        told_any = False
        async with aclosing(self._watches.watch(LinkKey(request.link_key), request.partition)) as stream:
            async for told in stream:
                told_any = True
                yield pb.WatchOwnedClicksResponse(told=told_message(told))
        if not told_any:
            yield pb.WatchOwnedClicksResponse()
