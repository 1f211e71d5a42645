"""Questions about counts: decode, find the present counts, encode."""

from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from analytics.domain.book import Book
from analytics.domain.rows import RowImage
from analytics.domain.stats import BadRange, Counts, Granularity, Step, decide_hours, merge, possible_hours, summarise
from analytics.handlers.present import Present
from analytics.ports import Links
from chassis.auth import principal_of
from chassis.clock import Clock
from chassis.errors import FieldViolation, InvalidArgument, NotFound
from chassis.grpc_interceptor import Context
from contracts.codes import is_possible_code
from contracts.link import LinkKey, link_key
from contracts.reasons import Reason
from contracts.scopes import STATS_READ
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceServicer

_HOURS_MAX = 92 * 24 + 2
_GRANULARITIES: Mapping[int, Granularity] = {
    pb.GRANULARITY_UNSPECIFIED: Granularity.DAY,
    pb.GRANULARITY_HOUR: Granularity.HOUR,
    pb.GRANULARITY_DAY: Granularity.DAY,
}


class AnalyticsService(AnalyticsServiceServicer):
    """GetClickStats and ReadOwnedRows."""

    def __init__(self, book: Book, *, links: Links, present: Present, clock: Clock) -> None:
        self._book = book
        self._links = links
        self._present = present
        self._clock = clock

    async def GetClickStats(  # noqa: N802 (the name in the proto)
        self,
        request: pb.GetClickStatsRequest,
        context: Context,  # noqa: ARG002 (gRPC's signature)
    ) -> pb.GetClickStatsResponse:
        """Counts of one link, the present included."""
        principal = principal_of(request.principal, STATS_READ)
        now_ms = int(self._clock.now().timestamp() * 1000)
        hours = _hours(request, now_ms)
        granularity = _granularity(request.granularity)
        if not is_possible_code(request.short_code):
            raise _no_link()
        link = await self._links.find(request.short_code, request.domain)
        if link.user_id != principal.user_id:
            raise _no_link()  # whether somebody else has it is not told

        key = link_key(request.short_code, request.domain)
        found = await self._present.read(key, possible_hours(hours, created_ms=link.created_ms, now_ms=now_ms))
        stats = summarise(merge(found.owned, found.stored), granularity)

        return pb.GetClickStatsResponse(
            short_code=request.short_code,
            counted_until=_instant(found.counted_until_ms),
            clicks=pb.ClickTotals(total=stats.total.clicks, human=stats.total.human, bot=stats.total.bot),
            prefetches=stats.total.prefetches,
            unique_visitors=stats.total.unique_visitors,
            series=_series(stats.series),
        )

    async def ReadOwnedRows(  # noqa: N802 (the name in the proto)
        self,
        request: pb.ReadOwnedRowsRequest,
        context: Context,  # noqa: ARG002 (gRPC's signature)
    ) -> pb.ReadOwnedRowsResponse:
        """The rows in this process' memory, for another instance."""
        partition = request.partition
        if partition not in self._book.held:
            return pb.ReadOwnedRowsResponse(owned=False)
        first: Timestamp = getattr(request, "from")
        hours = range(first.seconds // 3600, request.until.seconds // 3600)
        if len(hours) > _HOURS_MAX:
            raise _invalid("until", "The range is too long.")
        rows = self._book.read(LinkKey(request.link_key), partition, hours)
        return pb.ReadOwnedRowsResponse(
            owned=True,
            rows=[_row(row) for row in rows],
            counted_until=_instant(self._book.counted_until_ms(partition)),
        )


def _hours(request: pb.GetClickStatsRequest, now_ms: int) -> range:
    first: Timestamp = getattr(request, "from")
    hours = decide_hours(
        from_ms=first.ToMilliseconds() if request.HasField("from") else None,
        until_ms=request.until.ToMilliseconds() if request.HasField("until") else None,
        now_ms=now_ms,
    )
    if isinstance(hours, BadRange):
        raise _invalid(hours.field, hours.description)
    return hours


def _granularity(wanted: int) -> Granularity:
    if wanted not in _GRANULARITIES:
        raise _invalid("granularity", "The granularity is an hour or a day.")
    return _GRANULARITIES[wanted]


def _series(steps: Sequence[Step]) -> Sequence[pb.ClickSeriesPoint]:
    return [_point(step.start, step.counts) for step in steps]


def _point(hour: int, counts: Counts) -> pb.ClickSeriesPoint:
    return pb.ClickSeriesPoint(
        start=Timestamp(seconds=hour * 3600), clicks=counts.clicks, unique_visitors=counts.unique_visitors
    )


def _row(row: RowImage) -> pb.ClickRow:
    return pb.ClickRow(
        hour=Timestamp(seconds=row.id.hour * 3600),
        partition=row.id.partition,
        last_offset=row.applied.offset,
        topic_epoch=row.applied.epoch,
        human=row.human,
        bot=row.bot,
        prefetches=row.prefetches,
        visitors=row.visitors,
    )


def _instant(at_ms: int) -> Timestamp:
    message = Timestamp()
    message.FromMilliseconds(at_ms)
    return message


def _invalid(field: str, description: str) -> InvalidArgument:
    reason = Reason.INVALID_FIELD
    return InvalidArgument(reason.code, reason.title, fields=(FieldViolation(field, description),))


def _no_link() -> NotFound:
    return NotFound(Reason.LINK_NOT_FOUND.code, Reason.LINK_NOT_FOUND.title)
