"""What the domain found, as messages: for those who ask, and for other instances."""

from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from analytics.domain.clicks import DAY_HOURS, Click, VisitorClass
from analytics.domain.labels import Dimension, value_of
from analytics.domain.rows import RowImage, TopImage
from analytics.domain.sequences import Spool
from analytics.domain.stats import Counts, Stats, Step
from analytics.domain.watching import Told
from analytics.ports import OwnedSpools
from shortener.analytics.v1 import analytics_service_pb2 as pb


def instant(at_ms: int) -> Timestamp:
    """A moment, given in ms since 1970."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)


def stats_message(stats: Stats, short_code: str, counted_until_ms: int) -> pb.GetClickStatsResponse:
    """The counts of a link."""
    return pb.GetClickStatsResponse(
        short_code=short_code,
        counted_until=instant(counted_until_ms),
        clicks=pb.ClickTotals(total=stats.total.clicks, human=stats.total.human, bot=stats.total.bot),
        prefetches=stats.total.prefetches,
        unique_visitors=stats.total.unique_visitors,
        series=_series(stats.series),
    )


def row_message(row: RowImage) -> pb.ClickRow:
    """A row of a link."""
    return pb.ClickRow(
        hour=Timestamp(seconds=row.id.hour * 3600),
        partition=row.id.partition,
        last_offset=row.applied.offset,
        topic_epoch=row.applied.epoch,
        human=row.human,
        bot=row.bot,
        prefetches=row.prefetches,
        visitors=row.visitors,
        labels=row.labels.keys(),
        label_clicks=row.labels.values(),
    )


def top_row_message(row: TopImage) -> pb.TopLinksRow:
    """A row of an account's top links."""
    return pb.TopLinksRow(
        day=Timestamp(seconds=row.id.day * DAY_HOURS * 3600),
        partition=row.id.partition,
        last_offset=row.applied.offset,
        topic_epoch=row.applied.epoch,
        links=row.links.keys(),
        clicks=row.links.values(),
    )


def told_message(told: Told) -> pb.WatchClicksResponse:
    """What a watcher is told."""
    return pb.WatchClicksResponse(
        clicks=[_live(click) for click in told.clicks],
        missed=told.missed,
        interrupted=told.interrupted,
        counted_until=instant(told.counted_until_ms),
    )


def partition_message(partition: int, found: OwnedSpools, *, owned: bool) -> pb.PartitionAccount:
    """Up to when a partition is folded."""
    return pb.PartitionAccount(
        partition=partition,
        counted_until=instant(found.counted_until_ms),
        owned=owned,
        without_spool=found.without_spool,
        forgotten_until=instant(found.forgotten_until_ms) if found.forgotten_until_ms else None,
    )


def spool_messages(partition: int, spools: Mapping[str, Spool]) -> list[pb.SpoolAccount]:
    """The accounts of a partition's spools."""
    return [
        pb.SpoolAccount(
            spool_id=spool_id,
            partition=partition,
            recorded=spool.recorded,
            dropped=spool.dropped,
            closed=spool.closed,
            shipped=spool.last,
            counted=spool.counted,
            repeats=spool.repeats,
            missing=spool.last - spool.counted,
            buried=spool.buried,
        )
        for spool_id, spool in spools.items()
    ]


def _series(steps: Sequence[Step]) -> Iterable[pb.ClickSeriesPoint]:
    return [_point(step.start, step.counts) for step in steps]


def _point(hour: int, counts: Counts) -> pb.ClickSeriesPoint:
    return pb.ClickSeriesPoint(
        start=Timestamp(seconds=hour * 3600), clicks=counts.clicks, unique_visitors=counts.unique_visitors
    )


_CLASSES: Mapping[VisitorClass, str] = {each: each.value for each in VisitorClass}


def _live(click: Click) -> pb.LiveClick:
    return pb.LiveClick(
        at=instant(click.at_ms),
        visitor_class=_CLASSES[click.visitor_class],
        country=value_of(click.labels, Dimension.COUNTRY),
        referrer=value_of(click.labels, Dimension.REFERRER),
        browser=value_of(click.labels, Dimension.BROWSER),
        os=value_of(click.labels, Dimension.OS),
        device=value_of(click.labels, Dimension.DEVICE),
    )
