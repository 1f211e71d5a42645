"""Rows in the memory of other instances, over gRPC; a channel for each, made when first needed."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from analytics.domain.clicks import Hour, RowId
from analytics.domain.rows import Applied, RowImage
from analytics.ports import OwnedRows
from contracts.link import LinkKey
from shortener.analytics.v1.analytics_service_pb2 import ClickRow, ReadOwnedRowsRequest
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub

if TYPE_CHECKING:
    from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub

_TIMEOUT_S = 0.3  # then the table answers alone
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
        first = {"from": Timestamp(seconds=hours.start * 3600)}  # the field's name is a keyword of the language
        until = Timestamp(seconds=hours.stop * 3600)
        request = ReadOwnedRowsRequest(link_key=key, partition=partition, until=until, **first)
        stub = await self._stub(owner)
        answer = await stub.ReadOwnedRows(request, timeout=_TIMEOUT_S)
        if not answer.owned:
            return None
        rows = [_row(row, key) for row in answer.rows]
        return OwnedRows(rows, answer.counted_until.ToMilliseconds())

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


def _row(message: ClickRow, key: LinkKey) -> RowImage:
    return RowImage(
        RowId(key, Hour(message.hour.seconds // 3600), message.partition),
        Applied(message.topic_epoch, message.last_offset),
        human=message.human,
        bot=message.bot,
        prefetches=message.prefetches,
        visitors=message.visitors,
    )
