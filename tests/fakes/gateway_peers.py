"""The other processes as the gateway sees them, in memory: servicers that can be called directly or served by gRPC.

Each keeps what it was asked in `requests`, answers by `fail[<method>]` (a ServiceError) if that is set, and waits for
`gate` first if that is set.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from chassis.auth import Access, Plan, Principal, principal_from_message, principal_to_message
from chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
)
from chassis.grpc_server import Service
from chassis.item_problems import problem_of
from contracts.api_keys import format_key
from contracts.link import EventId, EventType, FieldChange, Link, LinkEvent, LinkState, UserId
from contracts.link_codec import link_event_to_message, link_to_message, timestamp
from contracts.scopes import ACCOUNT_SCOPES
from shortener.analytics.v1 import analytics_service_pb2 as analytics_pb
from shortener.analytics.v1 import analytics_service_pb2_grpc as analytics_grpc
from shortener.audit.v1 import audit_leaf_pb2, audit_service_pb2_grpc
from shortener.audit.v1 import audit_service_pb2 as audit_pb
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.key.v1 import key_service_pb2_grpc as key_grpc
from shortener.link.v1 import link_service_pb2 as link_pb
from shortener.link.v1 import link_service_pb2_grpc as link_grpc
from shortener.webhook.v1 import webhook_service_pb2 as webhook_pb
from shortener.webhook.v1 import webhook_service_pb2_grpc as webhook_grpc

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = format_key("a" * 30)
ALICE = Principal("alice", frozenset(ACCOUNT_SCOPES), Plan.PREMIUM)
EVENT_ID = EventId("019aab2e-0000-7000-8000-000000000001")


def make_link(short_code: str = "aB3dE7x", **changes: Any) -> Link:
    """A link of Alice's."""
    values: dict[str, Any] = {
        "short_code": short_code,
        "long_url": "https://example.com/there",
        "user_id": UserId(ALICE.user_id),
        "version": 1,
        "event_id": EVENT_ID,
        "created_at": AT,
        "updated_at": AT,
    }
    return Link(**(values | changes))


class _Peer:
    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.fail: dict[str, ServiceError] = {}
        self.gate: asyncio.Event | None = None

    async def _asked(self, method: str, request: object) -> None:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if error := self.fail.get(method):
            raise error


class FakeLinkService(_Peer, link_grpc.LinkServiceServicer):
    """Links in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, Link] = {}
        self.unconfirmed = False
        self.batches: list[link_pb.BatchCreateLinksRequest] = []
        self.batch_gate: asyncio.Event | None = None  # calls of BatchCreateLinks wait for it before anything is made

    async def CreateLink(  # noqa: N802 (gRPC's name)
        self, request: link_pb.CreateLinkRequest, _context: object = None
    ) -> link_pb.CreateLinkResponse:
        await self._asked("CreateLink", request)
        code = request.custom_code or f"gen{len(self.links):04d}"
        if code in self.links:
            raise AlreadyExists("custom_code_taken", "The code is taken.")
        link = make_link(
            code,
            long_url=request.long_url,
            user_id=UserId(request.principal.user_id),
            is_custom=bool(request.custom_code),
            title=request.title,
            tags=tuple(request.tags),
            redirect_status=request.redirect_status or 302,
            expires_at=request.expires_at.ToDatetime(tzinfo=UTC) if request.HasField("expires_at") else None,
        )
        self.links[code] = link
        return link_pb.CreateLinkResponse(link=link_to_message(link))

    async def BatchCreateLinks(  # noqa: N802
        self, request: link_pb.BatchCreateLinksRequest, _context: object = None
    ) -> link_pb.BatchCreateLinksResponse:
        self.batches.append(request)
        if self.batch_gate is not None:
            await self.batch_gate.wait()
        if error := self.fail.get("BatchCreateLinks"):
            raise error
        planted = self.fail.get("CreateLink")
        if planted is not None and (not isinstance(planted, ServiceError) or planted.metadata):
            raise planted  # a bug, or what a transport does: both end the whole call
        results = []
        for item in request.items:
            try:
                made = await self.CreateLink(item.request)
                results.append(link_pb.BatchedCreateLinkResult(link=made.link))
            except ServiceError as exc:
                results.append(link_pb.BatchedCreateLinkResult(problem=problem_of(exc)))
        return link_pb.BatchCreateLinksResponse(results=results)

    async def GetLink(  # noqa: N802
        self, request: link_pb.GetLinkRequest, _context: object = None
    ) -> link_pb.GetLinkResponse:
        await self._asked("GetLink", request)
        return link_pb.GetLinkResponse(link=link_to_message(self._own(request)))

    async def DeleteLink(  # noqa: N802
        self, request: link_pb.DeleteLinkRequest, _context: object = None
    ) -> link_pb.DeleteLinkResponse:
        await self._asked("DeleteLink", request)
        link = self._own(request)
        if request.if_version not in (0, link.version):
            raise Aborted("version_conflict", "The link has changed since.")
        if link.state is not LinkState.DELETED:
            link = make_link(
                link.short_code, state=LinkState.DELETED, version=link.version + 1, deleted_at=AT, updated_at=AT
            )
            self.links[link.short_code] = link
        return link_pb.DeleteLinkResponse(link=link_to_message(link))

    async def UpdateLink(  # noqa: N802
        self, request: link_pb.UpdateLinkRequest, _context: object = None
    ) -> link_pb.UpdateLinkResponse:
        await self._asked("UpdateLink", request)
        link = self._own(request)
        if request.if_version not in (0, link.version):
            raise Aborted("version_conflict", "The link has changed since.")
        if link.state is LinkState.DELETED:
            raise FailedPrecondition("state_conflict", "The link is deleted.")
        link = replace(link, version=link.version + 1, **_meant(request))
        self.links[link.short_code] = link
        return link_pb.UpdateLinkResponse(link=link_to_message(link))

    async def RestoreLink(  # noqa: N802
        self, request: link_pb.RestoreLinkRequest, _context: object = None
    ) -> link_pb.RestoreLinkResponse:
        await self._asked("RestoreLink", request)
        link = self._own(request)
        if link.state is LinkState.DELETED:
            link = replace(link, state=LinkState.ACTIVE, version=link.version + 1, deleted_at=None)
            self.links[link.short_code] = link
        return link_pb.RestoreLinkResponse(link=link_to_message(link))

    async def ListLinkEvents(  # noqa: N802
        self, request: link_pb.ListLinkEventsRequest, _context: object = None
    ) -> link_pb.ListLinkEventsResponse:
        await self._asked("ListLinkEvents", request)
        link = self._own(request)
        changes = (FieldChange("title", '"Old"', '"New"'), FieldChange("expires_at", "", '"2027-01-01T00:00:00Z"'))
        event = LinkEvent(
            type=EventType.UPDATED,
            event_id=link.event_id,
            version=link.version,
            at=link.updated_at,
            user_id=link.user_id,
            link=link,
            changes=changes,
        )
        return link_pb.ListLinkEventsResponse(
            events=[link_event_to_message(event)], next_page_token="more", current_version=link.version + 1
        )

    async def GetLinkAt(  # noqa: N802
        self, request: link_pb.GetLinkAtRequest, _context: object = None
    ) -> link_pb.GetLinkAtResponse:
        await self._asked("GetLinkAt", request)
        return link_pb.GetLinkAtResponse(link=link_to_message(self._own(request)))

    async def RebuildLink(  # noqa: N802
        self, request: link_pb.RebuildLinkRequest, _context: object = None
    ) -> link_pb.RebuildLinkResponse:
        await self._asked("RebuildLink", request)
        change = link_pb.LinkFieldChange(field="title", old_value='"Lost"', new_value='"Old"')
        return link_pb.RebuildLinkResponse(link=link_to_message(self._own(request)), changes=[change])

    async def ResolveLink(  # noqa: N802
        self, request: link_pb.ResolveLinkRequest, _context: object = None
    ) -> link_pb.ResolveLinkResponse:
        found = self.links.get(request.short_code)  # as of the question: an answer can be old when it arrives
        await self._asked("ResolveLink", request)
        if found is None:
            raise NotFound("link_not_found", "There is no such link.")
        return link_pb.ResolveLinkResponse(link=link_to_message(found), unconfirmed=self.unconfirmed)

    def _own(self, request: "_OfLink") -> Link:
        link = self.links.get(request.short_code)
        if link is None or link.user_id != request.principal.user_id:
            raise NotFound("link_not_found", "There is no such link.")
        return link


_OfLink = (
    link_pb.GetLinkRequest
    | link_pb.UpdateLinkRequest
    | link_pb.DeleteLinkRequest
    | link_pb.RestoreLinkRequest
    | link_pb.ListLinkEventsRequest
    | link_pb.GetLinkAtRequest
    | link_pb.RebuildLinkRequest
)


def _meant(request: link_pb.UpdateLinkRequest) -> dict[str, Any]:
    """The fields of a link that an update sets, and to what."""
    values = {
        "long_url": request.long_url,
        "title": request.title,
        "tags": tuple(request.tags),
        "expires_at": request.expires_at.ToDatetime(tzinfo=UTC) if request.HasField("expires_at") else None,
        "starts_at": request.starts_at.ToDatetime(tzinfo=UTC) if request.HasField("starts_at") else None,
        "redirect_status": request.redirect_status or 302,
    }
    return {name: values[name] for name in request.update_mask.paths}


class FakeKeyService(_Peer, key_grpc.KeyServiceServicer):
    """Keys in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = {KEY: ALICE}

    async def CreateKey(  # noqa: N802
        self, request: key_pb.CreateKeyRequest, _context: object = None
    ) -> key_pb.CreateKeyResponse:
        await self._asked("CreateKey", request)
        asks = principal_from_message(request.principal)
        if unknown := sorted(set(request.scopes) - set(ACCOUNT_SCOPES)):
            fields = (FieldViolation("scopes", f"There is no scope {unknown[0]!r}."),)
            raise InvalidArgument("invalid_field", fields[0].description, fields=fields)
        if asks.user_id and (asks.user_id != request.user_id or not set(request.scopes) <= asks.scopes):
            raise PermissionDenied("permission_denied", "A key can only be made for one's own account and scopes.")
        secret = format_key(f"{len(self.keys):030d}")
        scopes = list(request.scopes) or list(ACCOUNT_SCOPES)
        self.keys[secret] = Principal(request.user_id, frozenset(scopes), asks.plan)
        key = key_pb.ApiKey(
            key_id=f"key_{len(self.keys)}",
            user_id=request.user_id,
            scopes=scopes,
            prefix=secret[:12],
            created_at=timestamp(AT),
        )
        return key_pb.CreateKeyResponse(api_key=key, secret=secret)

    async def VerifyKey(  # noqa: N802
        self, request: key_pb.VerifyKeyRequest, _context: object = None
    ) -> key_pb.VerifyKeyResponse:
        await self._asked("VerifyKey", request)
        principal = self.keys.get(request.secret)
        if principal is None:
            raise Unauthenticated("unauthenticated", "The key is not known.")
        return key_pb.VerifyKeyResponse(principal=principal_to_message(principal))


class FakeAnalyticsService(_Peer, analytics_grpc.AnalyticsServiceServicer):
    """One answer for every code; a stream tells what is put into `live`: answers, at last an error or None."""

    def __init__(self) -> None:
        super().__init__()
        self.live: asyncio.Queue[analytics_pb.WatchClicksResponse | ServiceError | None] = asyncio.Queue()
        self.watching = 0

    async def GetClickStats(  # noqa: N802
        self, request: analytics_pb.GetClickStatsRequest, _context: object = None
    ) -> analytics_pb.GetClickStatsResponse:
        await self._asked("GetClickStats", request)
        return analytics_pb.GetClickStatsResponse(
            short_code=request.short_code,
            counted_until=timestamp(AT),
            clicks=analytics_pb.ClickTotals(total=3, human=2, bot=1),
            prefetches=4,
            unique_visitors=2,
            series=[analytics_pb.ClickSeriesPoint(start=timestamp(AT), clicks=3, unique_visitors=2)],
            groups=[analytics_pb.ClickGroup(value="unknown", clicks=2)] if request.group_by else [],
        )

    async def ListTopLinks(  # noqa: N802
        self, request: analytics_pb.ListTopLinksRequest, _context: object = None
    ) -> analytics_pb.ListTopLinksResponse:
        await self._asked("ListTopLinks", request)
        return analytics_pb.ListTopLinksResponse(
            links=[analytics_pb.TopLink(short_code="aB3dE7x", clicks=9)],
            next_page_token="1",
            counted_until=timestamp(AT),
            other_clicks=5,
        )

    async def WatchClicks(  # noqa: N802
        self, request: analytics_pb.WatchClicksRequest, _context: object = None
    ) -> AsyncGenerator[analytics_pb.WatchClicksResponse, None]:
        await self._asked("WatchClicks", request)
        self.watching += 1
        try:
            while (told := await self.live.get()) is not None:
                if isinstance(told, ServiceError):
                    raise told
                yield told
        finally:
            self.watching -= 1

    async def ReadOwnedRows(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError  # the gateway asks none of these

    async def ReadOwnedTopLinks(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def ReadOwnedSpools(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def ReconcileClicks(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def WatchOwnedClicks(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class FakeWebhookService(_Peer, webhook_grpc.WebhookServiceServicer):
    """Endpoints in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoints: list[webhook_pb.Endpoint] = []

    async def CreateEndpoint(  # noqa: N802
        self, request: webhook_pb.CreateEndpointRequest, _context: object = None
    ) -> webhook_pb.CreateEndpointResponse:
        await self._asked("CreateEndpoint", request)
        endpoint = webhook_pb.Endpoint(
            endpoint_id=f"ep_{len(self.endpoints)}",
            user_id=request.principal.user_id,
            url=request.url,
            event_types=request.event_types,
            enabled=True,
            created_at=timestamp(AT),
        )
        self.endpoints.append(endpoint)
        return webhook_pb.CreateEndpointResponse(endpoint=endpoint, secret="whsec_c2VjcmV0")

    async def ListEndpoints(  # noqa: N802
        self, request: webhook_pb.ListEndpointsRequest, _context: object = None
    ) -> webhook_pb.ListEndpointsResponse:
        await self._asked("ListEndpoints", request)
        return webhook_pb.ListEndpointsResponse(endpoints=self.endpoints)

    async def DeleteEndpoint(  # noqa: N802
        self, request: webhook_pb.DeleteEndpointRequest, _context: object = None
    ) -> webhook_pb.DeleteEndpointResponse:
        await self._asked("DeleteEndpoint", request)
        kept = [endpoint for endpoint in self.endpoints if endpoint.endpoint_id != request.endpoint_id]
        if len(kept) == len(self.endpoints):
            raise NotFound("endpoint_not_found", "There is no such endpoint.")
        self.endpoints = kept
        return webhook_pb.DeleteEndpointResponse()

    async def ListDeliveries(  # noqa: N802
        self, request: webhook_pb.ListDeliveriesRequest, _context: object = None
    ) -> webhook_pb.ListDeliveriesResponse:
        await self._asked("ListDeliveries", request)
        delivery = webhook_pb.Delivery(
            endpoint_id=request.endpoint_id,
            event_id=EVENT_ID,
            event_type="link.created",
            state=webhook_pb.DELIVERY_STATE_DELIVERED,
            attempts=1,
            last_status=204,
            short_code="aB3dE7x",
        )
        return webhook_pb.ListDeliveriesResponse(deliveries=[delivery], next_page_token="more")


class FakeAuditService(_Peer, audit_service_pb2_grpc.AuditServiceServicer):
    """One entry in each log."""

    async def GetCheckpoint(  # noqa: N802
        self, request: audit_pb.GetCheckpointRequest, _context: object = None
    ) -> audit_pb.GetCheckpointResponse:
        await self._asked("GetCheckpoint", request)
        return audit_pb.GetCheckpointResponse(checkpoint="linkmesh\n1\nroot\n", size=1)

    async def ListEntries(  # noqa: N802
        self, request: audit_pb.ListEntriesRequest, _context: object = None
    ) -> audit_pb.ListEntriesResponse:
        await self._asked("ListEntries", request)
        leaf = audit_leaf_pb2.AuditLeaf(
            format=1,
            topic="links-events",
            partition=3,
            offset=7,
            recorded_at=timestamp(AT),
            event_id=EVENT_ID,
            event_type="shortener.events.v1.LinkCreated",
            commitment=b"\x01\x02",
        )
        entry = audit_pb.AuditEntry(leaf=leaf, leaf_index=7, short_code="aB3dE7x", version=1, user_id="alice")
        return audit_pb.ListEntriesResponse(entries=[entry], next_page_token="")


class Direct:
    """A client that calls a servicer in the same process: what a generated stub is over a channel."""

    def __init__(self, servicer: object) -> None:
        self._servicer = servicer
        self._streams: list[DirectStream] = []  # kept, so that only who cancels one ends it, and not the collector

    def __getattr__(self, method: str) -> Callable[..., Any]:
        handler = getattr(self._servicer, method)
        if inspect.isasyncgenfunction(handler):

            def begin(request: object, *, timeout: float) -> DirectStream:
                self._streams.append(DirectStream(handler(request, None), timeout))
                return self._streams[-1]

            return begin

        async def call(request: object, *, timeout: float) -> Any:
            assert timeout > 0, "a call between our own processes needs a deadline"
            return await handler(request, None)

        return call


class DirectStream:
    """A stream of a servicer in the same process, read and cancelled as a call over a channel is."""

    def __init__(self, answers: AsyncGenerator[Any, None], timeout: float) -> None:
        assert timeout > 0, "a call between our own processes needs a deadline"
        self._answers = answers
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._answers

    def cancel(self) -> None:
        """The reader is gone."""
        self.cancelled = True
        with contextlib.suppress(StopIteration, GeneratorExit, RuntimeError):
            self._answers.aclose().send(None)  # to its first await, as the transport's own cancelling is


_ADDERS: list[tuple[type[_Peer], Any, str, Callable[[Any, Any], None]]] = [
    (FakeLinkService, link_pb, "LinkService", link_grpc.add_LinkServiceServicer_to_server),
    (FakeKeyService, key_pb, "KeyService", key_grpc.add_KeyServiceServicer_to_server),
    (FakeAnalyticsService, analytics_pb, "AnalyticsService", analytics_grpc.add_AnalyticsServiceServicer_to_server),
    (FakeWebhookService, webhook_pb, "WebhookService", webhook_grpc.add_WebhookServiceServicer_to_server),
    (FakeAuditService, audit_pb, "AuditService", audit_service_pb2_grpc.add_AuditServiceServicer_to_server),
]


class FakePeers:
    """All five, and what a gRPC server needs to play them."""

    def __init__(self) -> None:
        self.links = FakeLinkService()
        self.keys = FakeKeyService()
        self.analytics = FakeAnalyticsService()
        self.webhooks = FakeWebhookService()
        self.audit = FakeAuditService()

    def services(self) -> list[Service]:
        """Each service, for callers that hold the mesh secret."""
        peers: dict[type[_Peer], _Peer] = {
            type(peer): peer for peer in (self.links, self.keys, self.analytics, self.webhooks, self.audit)
        }
        found = []
        for kind, module, name, add in _ADDERS:
            descriptor = module.DESCRIPTOR.services_by_name[name]
            policies = {method.name: Access.MESH for method in descriptor.methods}
            found.append(Service(descriptor, partial(add, peers[kind]), policies))
        return found
