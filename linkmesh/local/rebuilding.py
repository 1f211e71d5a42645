"""Rebuilding the rows of all links: page after page, each repeated until it is done, or until a person is needed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from chassis.backoff import Backoff
from chassis.errors import DeadlineExceeded, Unavailable
from chassis.grpc_status import error_of
from linkmesh.local.operator import OPERATOR, bearer, owner_channel
from shortener.link.v1 import link_admin_service_pb2 as pb
from shortener.link.v1.link_admin_service_pb2_grpc import LinkAdminServiceStub

_PAGE_TIMEOUT_S = 10.0
_ROWS_MAX = 100
_TRIES_MAX = 8  # of one page: some 15 s
_AGAIN = Backoff(first_s=0.2, cap_s=4.0)


@dataclass(slots=True)
class Rebuilt:
    """What came of the pages so far. `page_token`: of the next one, empty when all are done."""

    rebuilt: int = 0
    unchanged: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    page_token: str = ""
    stopped: str = ""  # why it ended before the last page


Call = Callable[[pb.RebuildLinksRequest], Awaitable[pb.RebuildLinksResponse]]


@asynccontextmanager
async def as_owner(state: Path, target: str) -> AsyncIterator[Call]:
    """Calls as the owner of the state folder, who holds the mesh secret of the system that runs there."""
    async with owner_channel(state, target, peer="link_service") as channel:
        stub = LinkAdminServiceStub(channel)

        def call(request: pb.RebuildLinksRequest) -> Awaitable[pb.RebuildLinksResponse]:
            request.principal.CopyFrom(OPERATOR)
            return stub.RebuildLinks(request, timeout=_PAGE_TIMEOUT_S)

        yield call


@asynccontextmanager
async def by_key(target: str, api_key: str) -> AsyncIterator[Call]:
    """Calls with an API key that has the scope `operate`."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = LinkAdminServiceStub(channel)
        metadata = bearer(api_key)
        yield lambda request: stub.RebuildLinks(request, timeout=_PAGE_TIMEOUT_S, metadata=metadata)


async def rebuild_all(call: Call, page_token: str, advance: Callable[[int], None]) -> Rebuilt:
    """Rebuilds from that page on. What it cannot mend is in the result, also a service that stays away.

    Raises:
        ServiceError: the caller may not, or the token is none.
    """
    total, rows, tries = Rebuilt(page_token=page_token), _ROWS_MAX, 0
    while True:
        try:
            page = await _ask(call, pb.RebuildLinksRequest(page_size=rows, page_token=total.page_token))
        except (Unavailable, DeadlineExceeded) as error:
            tries += 1
            if tries == _TRIES_MAX:
                total.stopped = error.message
                return total
            rows = max(1, rows // 2) if isinstance(error, DeadlineExceeded) else rows
            await asyncio.sleep(_AGAIN.delay_s(tries - 1))
            continue
        tries = 0
        total.rebuilt += page.rebuilt
        total.unchanged += page.unchanged
        total.failures += [
            {"short_code": it.short_code, "domain": it.domain, "code": it.reason.lower(), "detail": it.message}
            for it in page.failures
        ]
        total.page_token = page.next_page_token
        advance(page.rebuilt + page.unchanged + len(page.failures))
        if not total.page_token:
            return total


async def _ask(call: Call, request: pb.RebuildLinksRequest) -> pb.RebuildLinksResponse:
    try:
        return await call(request)
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error
