"""What other instances have in memory, over gRPC; a channel for each, made when first needed."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from analytics.domain.clicks import Click, Day, Hour, RowId, TopId, VisitorClass
from analytics.domain.labels import Dimension
from analytics.domain.rows import Applied, RowImage, TopImage
from analytics.domain.sequences import Spool
from analytics.domain.watching import Told
from analytics.ports import OwnedRows, OwnedSpools, OwnedTops
from contracts.link import LinkKey, UserId
from shortener.analytics.v1.analytics_service_pb2 import (
    ClickRow,
    LiveClick,
    ReadOwnedRowsRequest,
    ReadOwnedSpoolsRequest,
    ReadOwnedTopLinksRequest,
    SpoolAccount,
    TopLinksRow,
    WatchClicksResponse,
    WatchOwnedClicksRequest,
)
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub

if TYPE_CHECKING:
    from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub

_TIMEOUT_S = 0.3  # then the table answers alone
_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_CHANNELS_MAX = 64  # more instances than the topic should ever have partitions for

Open = Callable[[str], AbstractAsyncContextManager[grpc.aio.Channel]]


class GrpcPeers:
    """Peers, as an async context manager: closes its channels on the way out. `open_peer` opens one to `host:port`."""

    def __init__(self, open_peer: Open) -> None:
        self._open = open_peer
        self._turn = asyncio.Lock()
        self._stubs: OrderedDict[str, tuple[AnalyticsServiceAsyncStub, AsyncExitStack]] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._stubs:
            await self._close_oldest()

    async def read(self, owner: str, key: LinkKey, partition: int, hours: range) -> OwnedRows | None:
        """The rows in another instance's memory; None if it does not own the partition."""
        request = ReadOwnedRowsRequest(link_key=key, partition=partition, **_between(hours, _HOUR_S))
        answer = await (await self._stub(owner)).ReadOwnedRows(request, timeout=_TIMEOUT_S)
        if not answer.owned:
            return None
        rows = [_row(row, key) for row in answer.rows]
        return OwnedRows(rows, answer.counted_until.ToMilliseconds())

    async def read_tops(self, owner: str, user_id: UserId, days: range) -> Mapping[int, OwnedTops]:
        """The rows of an account's top links in another instance's memory, by partition that it owns."""
        request = ReadOwnedTopLinksRequest(user_id=user_id, **_between(days, _DAY_S))
        answer = await (await self._stub(owner)).ReadOwnedTopLinks(request, timeout=_TIMEOUT_S)
        rows: dict[int, list[TopImage]] = {}
        for row in answer.rows:
            rows.setdefault(row.partition, []).append(_top_row(row, user_id))
        return {
            each.partition: OwnedTops(rows.get(each.partition, []), each.counted_until.ToMilliseconds())
            for each in answer.partitions
        }

    async def read_spools(self, owner: str, partition: int, after: str, count: int) -> OwnedSpools | None:
        """So many spools of a partition behind one of them; None if that instance does not own the partition."""
        request = ReadOwnedSpoolsRequest(partition=partition, after_spool_id=after, page_size=count)
        answer = await (await self._stub(owner)).ReadOwnedSpools(request, timeout=_TIMEOUT_S)
        if not answer.HasField("partition"):
            return None
        return OwnedSpools(
            {each.spool_id: _spool(each) for each in answer.spools},
            answer.partition.counted_until.ToMilliseconds(),
            answer.partition.without_spool,
            answer.partition.forgotten_until.ToMilliseconds(),
        )

    async def watch(self, owner: str, key: LinkKey, partition: int, *, timeout_s: float) -> AsyncGenerator[Told, None]:
        """What another instance counts of a link from now on."""
        request = WatchOwnedClicksRequest(link_key=key, partition=partition)
        call = (await self._stub(owner)).WatchOwnedClicks(request, timeout=timeout_s)
        try:
            async for answer in call:
                if not answer.HasField("told"):
                    return
                yield _told(answer.told, key)
        finally:
            call.cancel()  # it must not stream to nobody

    async def _stub(self, owner: str) -> "AnalyticsServiceAsyncStub":
        async with self._turn:
            if owner not in self._stubs:
                while len(self._stubs) >= _CHANNELS_MAX:
                    await self._close_oldest()
                stack = AsyncExitStack()
                channel = await stack.enter_async_context(self._open(owner))
                self._stubs[owner] = (AnalyticsServiceStub(channel), stack)
            self._stubs.move_to_end(owner)
            return self._stubs[owner][0]

    async def _close_oldest(self) -> None:
        _, (_, stack) = self._stubs.popitem(last=False)
        await stack.aclose()


def _between(span: range, width_s: int) -> dict[str, Timestamp]:
    """The fields of a range; one has the name of a keyword."""
    return {"from": Timestamp(seconds=span.start * width_s), "until": Timestamp(seconds=span.stop * width_s)}


def _row(message: ClickRow, key: LinkKey) -> RowImage:
    return RowImage(
        RowId(key, Hour(message.hour.seconds // _HOUR_S), message.partition),
        Applied(message.topic_epoch, message.last_offset),
        human=message.human,
        bot=message.bot,
        prefetches=message.prefetches,
        visitors=message.visitors,
        labels=dict(zip(message.labels, message.label_clicks, strict=True)),
    )


def _top_row(message: TopLinksRow, user_id: UserId) -> TopImage:
    return TopImage(
        TopId(message.partition, user_id, Day(message.day.seconds // _DAY_S)),
        Applied(message.topic_epoch, message.last_offset),
        dict(zip(message.links, message.clicks, strict=True)),
    )


def _spool(message: SpoolAccount) -> Spool:
    return Spool(
        last=message.shipped,
        counted=message.counted,
        repeats=message.repeats,
        buried=message.buried,
        recorded=message.recorded,
        dropped=message.dropped,
        closed=message.closed,
    )


def _told(message: WatchClicksResponse, key: LinkKey) -> Told:
    return Told(
        [_click(click, key) for click in message.clicks],
        message.missed,
        message.interrupted,
        message.counted_until.ToMilliseconds(),
    )


def _click(message: LiveClick, key: LinkKey) -> Click:
    values = (
        (Dimension.COUNTRY, message.country),
        (Dimension.REFERRER, message.referrer),
        (Dimension.BROWSER, message.browser),
        (Dimension.OS, message.os),
        (Dimension.DEVICE, message.device),
    )
    labels = tuple(dimension.value + value for dimension, value in values)
    return Click(key, UserId(""), message.at.ToMilliseconds(), b"", VisitorClass(message.visitor_class), labels)
