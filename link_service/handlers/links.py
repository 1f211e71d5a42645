"""LinkService: decode, decide, do, encode."""

from dataclasses import dataclass, replace

from chassis.auth import Access, principal_of
from chassis.clock import Clock
from contracts.link import Link, LinkEvent, UserId
from contracts.link_codec import changes_to_messages, link_event_to_message, link_to_message
from contracts.scopes import LINKS_READ, LINKS_WRITE
from link_service.domain import changes, links
from link_service.domain.destinations import DestinationPolicy
from link_service.domain.links import NotTheirs, Violations, Who
from link_service.handlers.attempts import Attempts
from link_service.handlers.batching import BatchCreation
from link_service.handlers.changing import Changes, GeneratedCreation
from link_service.handlers.custom import CustomCreation
from link_service.handlers.decoding import key_of, moment_of, repeatable_of, revision_of, version_of, wish_of
from link_service.handlers.history import History
from link_service.handlers.reading import Reader
from link_service.handlers.rebuilding import Rebuilding
from link_service.handlers.refusals import not_found, told
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb
from shortener.link.v1 import link_service_pb2_grpc as pb_grpc

POLICIES: dict[str, str | Access] = {
    "CreateLink": LINKS_WRITE,
    "BatchCreateLinks": LINKS_WRITE,
    "GetLink": LINKS_READ,
    "UpdateLink": LINKS_WRITE,
    "DeleteLink": LINKS_WRITE,
    "RestoreLink": LINKS_WRITE,
    "ListLinkEvents": LINKS_READ,
    "GetLinkAt": LINKS_READ,
    "RebuildLink": LINKS_WRITE,
    "ResolveLink": Access.MESH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFlows:
    """What the RPCs hand on to."""

    generated: GeneratedCreation
    custom: CustomCreation
    changes: Changes
    history: History
    rebuilding: Rebuilding
    attempts: Attempts
    owners: Reader  # for GetLink, on the connection of changes
    redirects: Reader  # for ResolveLink, on a connection of its own [L4]


class LinkHandlers(pb_grpc.LinkServiceServicer):
    """The RPCs of LinkService."""

    def __init__(self, flows: LinkFlows, policy: DestinationPolicy, clock: Clock) -> None:
        self._flows = flows
        self._policy = policy
        self._clock = clock
        self._batches = BatchCreation(flows.generated, self._create, policy, clock)

    async def CreateLink(self, request: pb.CreateLinkRequest, _context: object) -> pb.CreateLinkResponse:  # noqa: N802 (named by the proto)
        """Makes a link."""
        return pb.CreateLinkResponse(link=await self._create(request))

    async def BatchCreateLinks(  # noqa: N802
        self, request: pb.BatchCreateLinksRequest, _context: object
    ) -> pb.BatchCreateLinksResponse:
        """Makes many links."""
        return await self._batches.create(request)

    async def _create(self, request: pb.CreateLinkRequest) -> link_pb2.Link:
        principal = principal_of(request.principal, LINKS_WRITE)
        asked = repeatable_of(request, principal)
        terms = links.check(wish_of(request), now=self._clock.now(), policy=self._policy)
        if isinstance(terms, Violations):
            # A repeat of what was allowed once, such as an end that has come meanwhile, gets its first answer [I1].
            if (earlier := await self._flows.attempts.answered(asked)) is not None:
                return link_to_message(earlier)
            raise told(terms)
        flow = self._flows.custom if terms.wish.custom_code else self._flows.generated
        return link_to_message(await flow.create(terms, asked))

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

    async def UpdateLink(self, request: pb.UpdateLinkRequest, _context: object) -> pb.UpdateLinkResponse:  # noqa: N802
        """Changes fields of a link."""
        principal = principal_of(request.principal, LINKS_WRITE)
        asked = repeatable_of(request, principal)
        revision, if_version = revision_of(request), version_of(request.if_version)

        def decide(current: Link, who: Who) -> LinkEvent | changes.Refusal:
            return changes.update(
                current, revision, who=who, if_version=if_version, now=self._clock.now(), policy=self._policy
            )

        link = await self._flows.changes.apply(key_of(request.short_code, request.domain), asked, decide)
        return pb.UpdateLinkResponse(link=self._message(link))

    async def DeleteLink(self, request: pb.DeleteLinkRequest, _context: object) -> pb.DeleteLinkResponse:  # noqa: N802
        """Ends a link."""
        principal = principal_of(request.principal, LINKS_WRITE)
        asked = repeatable_of(request, principal)
        if_version = version_of(request.if_version)

        def decide(current: Link, who: Who) -> LinkEvent | changes.Refusal:
            return links.delete(current, who=who, if_version=if_version, now=self._clock.now())

        link = await self._flows.changes.apply(key_of(request.short_code, request.domain), asked, decide)
        return pb.DeleteLinkResponse(link=link_to_message(link))

    async def RestoreLink(self, request: pb.RestoreLinkRequest, _context: object) -> pb.RestoreLinkResponse:  # noqa: N802
        """Brings a deleted link back."""
        principal = principal_of(request.principal, LINKS_WRITE)
        asked = repeatable_of(request, principal)
        if_version = version_of(request.if_version)

        def decide(current: Link, who: Who) -> LinkEvent | changes.Refusal:
            return changes.restore(current, who=who, if_version=if_version, now=self._clock.now())

        link = await self._flows.changes.apply(key_of(request.short_code, request.domain), asked, decide)
        return pb.RestoreLinkResponse(link=self._message(link))

    async def ListLinkEvents(  # noqa: N802
        self, request: pb.ListLinkEventsRequest, _context: object
    ) -> pb.ListLinkEventsResponse:
        """The history of a link."""
        principal = principal_of(request.principal, LINKS_READ)
        page = await self._flows.history.page(
            key_of(request.short_code, request.domain),
            UserId(principal.user_id),
            page_size=request.page_size,
            token=request.page_token,
        )
        return pb.ListLinkEventsResponse(
            events=[link_event_to_message(event) for event in page.events],
            next_page_token=page.next_page_token,
            current_version=page.current_version,
        )

    async def GetLinkAt(self, request: pb.GetLinkAtRequest, _context: object) -> pb.GetLinkAtResponse:  # noqa: N802
        """A link as it was at a time."""
        principal = principal_of(request.principal, LINKS_READ)
        key = key_of(request.short_code, request.domain)
        link = await self._flows.history.at(key, UserId(principal.user_id), moment_of(request))
        return pb.GetLinkAtResponse(link=link_to_message(link))

    async def RebuildLink(self, request: pb.RebuildLinkRequest, _context: object) -> pb.RebuildLinkResponse:  # noqa: N802
        """Repairs a projection."""
        principal = principal_of(request.principal, LINKS_WRITE)
        key = key_of(request.short_code, request.domain)
        rebuilt = await self._flows.rebuilding.rebuild(key, UserId(principal.user_id))
        return pb.RebuildLinkResponse(link=self._message(rebuilt.link), changes=changes_to_messages(rebuilt.changes))

    async def ResolveLink(self, request: pb.ResolveLinkRequest, _context: object) -> pb.ResolveLinkResponse:  # noqa: N802
        """Where a code leads."""
        found = await self._flows.redirects.resolve(key_of(request.short_code, request.domain))
        if found.link is None:
            raise not_found()
        return pb.ResolveLinkResponse(link=link_to_message(found.link), unconfirmed=found.unconfirmed)

    def _message(self, link: Link) -> link_pb2.Link:
        """A link of the caller's as it is now: it may have expired."""
        return link_to_message(replace(link, state=link.state_at(self._clock.now())))
