"""Whose a link is, from link_service, which knows links that are not yet in the table; kept for some seconds.

It is asked by ResolveLink, which any process of ours may call: the key behind a question for stats need not allow to
read links. Owner and time of creation never change, so that a kept answer cannot become wrong.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from analytics.ports import LinkFacts
from chassis.clock import Clock
from contracts.link import UserId
from shortener.link.v1.link_service_pb2 import ResolveLinkRequest

if TYPE_CHECKING:
    from shortener.link.v1.link_service_pb2_grpc import LinkServiceAsyncStub

_TIMEOUT_S = 0.5  # 300 ms that link_service takes at most to resolve, and the way
_KEPT_S = 5.0
_KEPT_MAX = 10_000


class GrpcLinks:
    """Links."""

    def __init__(self, service: "LinkServiceAsyncStub", *, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, LinkFacts]] = OrderedDict()  # oldest first

    async def find(self, short_code: str, domain: str) -> LinkFacts:
        """The facts of a link. Raises NotFound, Unavailable and DeadlineExceeded."""
        name = (short_code, domain)
        now = self._clock.monotonic()
        kept = self._kept.get(name)
        if kept is not None and now - kept[0] <= _KEPT_S:
            return kept[1]
        request = ResolveLinkRequest(short_code=short_code, domain=domain)
        link = (await self._service.ResolveLink(request, timeout=_TIMEOUT_S)).link
        facts = LinkFacts(UserId(link.user_id), link.created_at.ToMilliseconds())
        self._kept[name] = (now, facts)
        self._kept.move_to_end(name)
        while len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return facts
