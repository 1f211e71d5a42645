"""LinkService: decode, decide, do, encode."""

from dataclasses import dataclass

from chassis.auth import Access, principal_of
from chassis.clock import Clock
from contracts.link import UserId
from contracts.link_codec import link_to_message
from contracts.scopes import LINKS_READ, LINKS_WRITE
from link_service.domain import links
from link_service.domain.destinations import DestinationPolicy
from link_service.domain.links import NotTheirs, Violations
from link_service.handlers.changing import Deletion, GeneratedCreation, not_found
from link_service.handlers.custom import CustomCreation
from link_service.handlers.decoding import invalid_field, key_of, repeatable_of, told, wish_of
from link_service.handlers.reading import Reader
from shortener.link.v1 import link_service_pb2 as pb
from shortener.link.v1 import link_service_pb2_grpc as pb_grpc

POLICIES: dict[str, str | Access] = {
    "CreateLink": LINKS_WRITE,
    "GetLink": LINKS_READ,
    "DeleteLink": LINKS_WRITE,
    "ResolveLink": Access.MESH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFlows:
    """What the RPCs hand on to."""

    generated: GeneratedCreation
    custom: CustomCreation
    deletion: Deletion
    owners: Reader  # for GetLink, on the connection of changes
    redirects: Reader  # for ResolveLink, on a connection of its own [L4]


class LinkHandlers(pb_grpc.LinkServiceServicer):
    """The RPCs of LinkService."""

    def __init__(self, flows: LinkFlows, policy: DestinationPolicy, clock: Clock) -> None:
        self._flows = flows
        self._policy = policy
        self._clock = clock

    async def CreateLink(self, request: pb.CreateLinkRequest, _context: object) -> pb.CreateLinkResponse:  # noqa: N802 (named by the proto)
        """Makes a link."""
        principal = principal_of(request.principal, LINKS_WRITE)
        asked = repeatable_of(request, principal)
        terms = links.check(wish_of(request), now=self._clock.now(), policy=self._policy)
        if isinstance(terms, Violations):
            raise told(terms)
        flow = self._flows.custom if terms.wish.custom_code else self._flows.generated
        return pb.CreateLinkResponse(link=link_to_message(await flow.create(terms, asked)))

    async def GetLink(self, request: pb.GetLinkRequest, _context: object) -> pb.GetLinkResponse:  # noqa: N802
        """The owner's view of a link."""
        principal = principal_of(request.principal, LINKS_READ)
        link = await self._flows.owners.newest(key_of(request.short_code, request.domain))
        if link is None:
            raise not_found()
        seen = links.view(link, user_id=UserId(principal.user_id), now=self._clock.now())
        if isinstance(seen, NotTheirs):
            raise not_found()
        return pb.GetLinkResponse(link=link_to_message(seen))

    async def DeleteLink(self, request: pb.DeleteLinkRequest, _context: object) -> pb.DeleteLinkResponse:  # noqa: N802
        """Ends a link."""
        principal = principal_of(request.principal, LINKS_WRITE)
        asked = repeatable_of(request, principal)
        if request.if_version < 0:
            raise invalid_field("if_version", "A version is a positive number.")
        key = key_of(request.short_code, request.domain)
        link = await self._flows.deletion.delete(key, asked, if_version=request.if_version)
        return pb.DeleteLinkResponse(link=link_to_message(link))

    async def ResolveLink(self, request: pb.ResolveLinkRequest, _context: object) -> pb.ResolveLinkResponse:  # noqa: N802
        """Where a code leads."""
        found = await self._flows.redirects.resolve(key_of(request.short_code, request.domain))
        if found.link is None:
            raise not_found()
        return pb.ResolveLinkResponse(link=link_to_message(found.link), unconfirmed=found.unconfirmed)
