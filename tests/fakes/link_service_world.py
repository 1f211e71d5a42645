"""link_service without its processes around it: the real handlers on fakes, in virtual time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chassis.auth import Caller, Plan, Principal, set_caller
from chassis.task_room import TaskRoom
from contracts.codes import CodePermutation
from contracts.link_codec import decode_event, timestamp
from contracts.outbox_entries import decode_outbox_entry
from contracts.scopes import ACCOUNT_SCOPES, OPERATE
from link_service.domain.destinations import policy_for
from link_service.domain.ids import IdBlock, IdStock
from link_service.handlers.administration import LinkAdminHandlers
from link_service.handlers.attempts import Attempts
from link_service.handlers.changing import Changes, GeneratedCreation
from link_service.handlers.custom import CustomCreation, CustomStores
from link_service.handlers.history import History
from link_service.handlers.links import LinkFlows, LinkHandlers
from link_service.handlers.reading import Reader
from link_service.handlers.rebuilding import Rebuilding
from link_service.handlers.table_reads import TableReads
from shortener.link.v1 import link_admin_service_pb2 as admin_pb
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.link_cache import FakeLinkCache, FakeRedis
from tests.fakes.link_service_ports import FakeCacheServer, FakeEventLog, FakeIntents, FakeLinkKeys, FakeLinkTable

CODES = CodePermutation(b"k" * 32)
URL = "https://example.org/"


@dataclass
class LinkWorld:
    """The handlers and everything they stand on."""

    clock: VirtualClock
    redis: FakeRedis
    cache: FakeLinkCache
    table: FakeLinkTable
    room: TaskRoom
    server: FakeCacheServer = field(default_factory=FakeCacheServer)
    log: FakeEventLog = field(default_factory=FakeEventLog)
    intents: FakeIntents = field(default_factory=FakeIntents)
    stock: IdStock = field(default_factory=IdStock)

    def __post_init__(self) -> None:
        self.stock.add(IdBlock(0))
        self.reads = TableReads(self.table, self.room)
        self.reader = Reader(self.cache, self.reads, self.clock)
        attempts = Attempts(self.cache, self.intents, self.clock)
        stores = CustomStores(cache=self.cache, server=self.server, table=self.table, log=self.log)
        rebuilding = Rebuilding(self.table, self.cache, FakeLinkKeys(self.table))
        self.administration = LinkAdminHandlers(rebuilding)
        flows = LinkFlows(
            generated=GeneratedCreation(self.cache, attempts, self.stock, CODES, self.clock),
            custom=CustomCreation(stores, self.reader, attempts, self.room, self.clock),
            changes=Changes(self.cache, self.reader, attempts),
            history=History(self.reader, self.table),
            rebuilding=rebuilding,
            attempts=attempts,
            owners=self.reader,
            redirects=self.reader,
        )
        policy = policy_for("https://go.example.com", allow_private=False)
        self.handlers = LinkHandlers(flows, policy, self.clock)

    async def create(
        self,
        code: str = "",
        *,
        user_id: str = "ada",
        request_id: str = "",
        long_url: str = URL,
        expires_at: datetime | None = None,
    ) -> link_pb2.Link:
        """CreateLink by an account's API key."""
        act_as(user_id)
        end = timestamp(expires_at) if expires_at else None
        request = pb.CreateLinkRequest(long_url=long_url, custom_code=code, request_id=request_id, expires_at=end)
        return (await self.handlers.CreateLink(request, None)).link

    async def delete(
        self, code: str, *, user_id: str = "ada", if_version: int = 0, request_id: str = ""
    ) -> link_pb2.Link:
        """DeleteLink by an account's API key."""
        act_as(user_id)
        request = pb.DeleteLinkRequest(short_code=code, if_version=if_version, request_id=request_id)
        return (await self.handlers.DeleteLink(request, None)).link

    async def update(
        self,
        code: str,
        *,
        user_id: str = "ada",
        if_version: int = 0,
        request_id: str = "",
        mask: str = "",
        **fields: Any,
    ) -> link_pb2.Link:
        """UpdateLink of these fields (and of those in `mask`, which are emptied) by an account's API key."""
        act_as(user_id)
        request = pb.UpdateLinkRequest(short_code=code, if_version=if_version, request_id=request_id, **fields)
        request.update_mask.paths.extend([*fields, *mask.split()])
        return (await self.handlers.UpdateLink(request, None)).link

    async def restore(
        self, code: str, *, user_id: str = "ada", if_version: int = 0, request_id: str = ""
    ) -> link_pb2.Link:
        """RestoreLink by an account's API key."""
        act_as(user_id)
        request = pb.RestoreLinkRequest(short_code=code, if_version=if_version, request_id=request_id)
        return (await self.handlers.RestoreLink(request, None)).link

    async def history(
        self, code: str, *, user_id: str = "ada", page_size: int = 0, page_token: str = ""
    ) -> pb.ListLinkEventsResponse:
        """ListLinkEvents by an account's API key."""
        act_as(user_id)
        request = pb.ListLinkEventsRequest(short_code=code, page_size=page_size, page_token=page_token)
        return await self.handlers.ListLinkEvents(request, None)

    async def get_at(self, code: str, at: datetime, *, user_id: str = "ada") -> link_pb2.Link:
        """GetLinkAt by an account's API key."""
        act_as(user_id)
        request = pb.GetLinkAtRequest(short_code=code, at=timestamp(at))
        return (await self.handlers.GetLinkAt(request, None)).link

    async def rebuild(self, code: str, *, user_id: str = "ada") -> pb.RebuildLinkResponse:
        """RebuildLink by an account's API key."""
        act_as(user_id)
        return await self.handlers.RebuildLink(pb.RebuildLinkRequest(short_code=code), None)

    async def rebuild_page(self, *, rows: int = 0, token: str = "") -> admin_pb.RebuildLinksResponse:
        """RebuildLinks by an operator's API key."""
        set_caller(Caller(None, Principal("ops", frozenset({OPERATE}), Plan.FREE)))
        request = admin_pb.RebuildLinksRequest(page_size=rows, page_token=token)
        return await self.administration.RebuildLinks(request, None)

    async def get(self, code: str, *, user_id: str = "ada") -> link_pb2.Link:
        """GetLink by an account's API key."""
        act_as(user_id)
        return (await self.handlers.GetLink(pb.GetLinkRequest(short_code=code), None)).link

    async def resolve(self, code: str) -> pb.ResolveLinkResponse:
        """ResolveLink by a gateway."""
        return await self.handlers.ResolveLink(pb.ResolveLinkRequest(short_code=code), None)

    async def persist(self) -> None:
        """What relay and writer do with all that waits: rows, projection, and the entry gets its expiry."""
        for waiting in (entry for stream in self.redis.streams.values() for entry in stream):
            entry = decode_outbox_entry(waiting.data)
            event = decode_event(entry.event_type, entry.value)
            self.table.rows[entry.key, event.version] = event
        for key, (link, _) in list(self.redis.values.items()):
            self.table.events.add((key, link.version))
            self.table.meta[key] = link
            await self.cache.persisted(link)
        self.redis.streams.clear()

    def evict(self) -> None:
        """The expiry of every persisted entry comes true."""
        for key, (_, until) in list(self.redis.values.items()):
            if until is not None:
                del self.redis.values[key]


@asynccontextmanager
async def link_world() -> AsyncIterator[LinkWorld]:
    """A new one; use it inside `run_virtual`."""
    clock = VirtualClock()
    redis = FakeRedis(clock)
    async with TaskRoom() as room:
        yield LinkWorld(clock, redis, FakeLinkCache(redis), FakeLinkTable(), room)


def play(scenario: Callable[[LinkWorld], Awaitable[None]]) -> None:
    """Runs a scenario in a new world."""

    async def main() -> None:
        async with link_world() as world:
            await scenario(world)

    run_virtual(main())


def act_as(user_id: str) -> None:
    """From now on calls come with an API key of this account."""
    set_caller(Caller(None, Principal(user_id, frozenset(ACCOUNT_SCOPES), Plan.FREE)))
