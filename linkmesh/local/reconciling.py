"""Whether every click that gateways recorded was counted: the accounts of all spools, and what they come to [A10]."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import grpc

from chassis.grpc_status import error_of
from linkmesh.local.operator import OPERATOR, bearer, owner_channel
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub

_PAGE_TIMEOUT_S = 10.0
_AGAIN_S = 0.5
_LATE = timedelta(minutes=1)  # clocks differ, and a partition's end is looked at each second

Call = Callable[[pb.ReconcileClicksRequest], Awaitable[pb.ReconcileClicksResponse]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Clicks that were recorded by gateways, arrived in the log (`shipped`), were counted; that came again
    (`repeats`), never arrived or were not counted (`missing`, of these `buried` in dead letters), had no room
    (`dropped`).
    """

    recorded: int = 0
    shipped: int = 0
    counted: int = 0
    repeats: int = 0
    missing: int = 0
    buried: int = 0
    dropped: int = 0
    difference: int = 0  # what should be counted and is not


@dataclass(frozen=True, slots=True)
class SpoolFigures:
    """One spool over all of its partitions. `closed`: all of them said their last."""

    spool_id: str
    started_at: datetime
    closed: bool
    figures: Figures


@dataclass(slots=True)
class Reconciliation:
    """All accounts at one look, which began at `at`."""

    accounts: list[pb.SpoolAccount] = field(default_factory=list)
    partitions: list[pb.PartitionAccount] = field(default_factory=list)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def sums(self) -> Figures:
        """Over all spools."""
        return add_up(self.accounts)

    @property
    def spools(self) -> list[SpoolFigures]:
        """Each spool, the newest first."""
        by_id: dict[str, list[pb.SpoolAccount]] = {}
        for account in self.accounts:
            by_id.setdefault(account.spool_id, []).append(account)
        return [
            SpoolFigures(spool_id, _started_at(spool_id), all(each.closed for each in parts), add_up(parts))
            for spool_id, parts in sorted(by_id.items(), reverse=True)
        ]

    @property
    def without_spool(self) -> int:
        """Clicks that were counted without any books: of gateways that had no spool, and of replayed letters."""
        return sum(each.without_spool for each in self.partitions)

    @property
    def counted_until(self) -> datetime | None:
        """What was in the log before this moment is in the accounts; of the rest nothing is known."""
        return min((each.counted_until.ToDatetime(UTC) for each in self.partitions), default=None)

    @property
    def late(self) -> list[int]:
        """Partitions that are not counted until this look, such as while Kafka or their owner is away: that no
        difference is known of them says nothing.
        """
        return [each.partition for each in self.partitions if self.at - each.counted_until.ToDatetime(UTC) > _LATE]

    @property
    def balanced(self) -> bool:
        """Whether it is known that every click was counted."""
        return not self.sums.difference and not self.late

    @property
    def unowned(self) -> list[int]:
        """Partitions that nobody owned at this look: of them the last checkpoint is told."""
        return [each.partition for each in self.partitions if not each.owned]


def difference(account: pb.SpoolAccount) -> int:
    """Clicks that should be counted and are not. A spool's books come now and then, so that more may have arrived
    than they told last.
    """
    return max(account.recorded, account.shipped) - account.counted


def add_up(accounts: Iterable[pb.SpoolAccount]) -> Figures:
    """The sums of accounts. What is told of as shipped before the books told of it counts as recorded."""
    totals: dict[str, int] = dict.fromkeys(Figures.__dataclass_fields__, 0)
    for account in accounts:
        totals["recorded"] += max(account.recorded, account.shipped)
        totals["difference"] += difference(account)
        for name in ("shipped", "counted", "repeats", "missing", "buried", "dropped"):
            totals[name] += getattr(account, name)
    return Figures(**totals)


@asynccontextmanager
async def as_owner(state: Path, target: str) -> AsyncIterator[Call]:
    """Calls as the owner of the state folder, who holds the mesh secret of the system that runs there."""
    async with owner_channel(state, target, peer="analytics") as channel:
        stub = AnalyticsServiceStub(channel)

        def call(request: pb.ReconcileClicksRequest) -> Awaitable[pb.ReconcileClicksResponse]:
            request.principal.CopyFrom(OPERATOR)
            return stub.ReconcileClicks(request, timeout=_PAGE_TIMEOUT_S)

        yield call


@asynccontextmanager
async def by_key(target: str, api_key: str) -> AsyncIterator[Call]:
    """Calls with an API key that has the scope `operate`."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = AnalyticsServiceStub(channel)
        metadata = bearer(api_key)
        yield lambda request: stub.ReconcileClicks(request, timeout=_PAGE_TIMEOUT_S, metadata=metadata)


async def reconcile(call: Call, *, wait_s: float) -> Reconciliation:
    """All accounts; while something differs or is late, which may be on its way, looks again for that long.

    Raises:
        ServiceError: the caller may not, or analytics does not answer.
    """
    ends = asyncio.get_running_loop().time() + wait_s
    while True:
        found = await _look(call)
        if found.balanced or asyncio.get_running_loop().time() >= ends:
            return found
        await asyncio.sleep(_AGAIN_S)


async def _look(call: Call) -> Reconciliation:
    found, token = Reconciliation(), ""
    while True:
        try:
            page = await call(pb.ReconcileClicksRequest(page_token=token))
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        found.accounts += page.spools
        found.partitions += page.partitions
        token = page.next_page_token
        if not token:
            return found


def _started_at(spool_id: str) -> datetime:
    return datetime.fromtimestamp((UUID(spool_id).int >> 80) / 1000, UTC)


def unbalanced(spools: Sequence[SpoolFigures]) -> list[SpoolFigures]:
    """Those of which something is not counted."""
    return [spool for spool in spools if spool.figures.difference]
