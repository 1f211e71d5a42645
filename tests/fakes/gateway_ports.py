"""The gateway's ports in memory, and its front door put together from them, asked without a socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import httpx

from chassis.errors import Unavailable
from contracts.cache import encode_entry
from contracts.link import Link, LinkKey
from gateway.adapters.click_recorder import SpoolClickRecorder
from gateway.adapters.creator_grpc import GrpcLinkCreator
from gateway.adapters.keys_grpc import GrpcKeys
from gateway.adapters.resolver_grpc import GrpcResolver
from gateway.domain.issued import IssuedCodes
from gateway.domain.misses import MissBudget
from gateway.domain.near_cache import Limits
from gateway.domain.visitors import Visitors
from gateway.fast_creates import FastCreates
from gateway.fast_lookups import FastLookups
from gateway.handlers.api import Peers, make_api
from gateway.handlers.creating import Creates
from gateway.handlers.front import Front
from gateway.handlers.lookups import Lookups, Sources
from gateway.handlers.pages import make_pages
from gateway.handlers.redirects import Redirects
from gateway.ports import TellValue
from shortener.events.v1.click_events_pb2 import LinkAccessed, LinksAccessed
from tests.fakes.gateway_peers import AT, KEY, Direct, FakePeers

PUBLIC_URL = "https://lm.example"


class FakeClock:
    """Time that passes only by `pass_by`; nothing sleeps by it."""

    def __init__(self, now: datetime = AT) -> None:
        self._start = now
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        """Wall clock."""
        return self._start + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self.elapsed_s

    async def sleep(self, delay_s: float) -> None:
        """Passes the time at once."""
        self.elapsed_s += delay_s
        await asyncio.sleep(0)


class FakeLinkCache:
    """A LinkCache in a dictionary. `away`: nobody gets an answer."""

    def __init__(self) -> None:
        self.links: dict[LinkKey, Link] = {}
        self.away = False
        self.asked: list[LinkKey] = []

    def begin(self, key: LinkKey, tell: TellValue) -> None:
        """Tells of the link in the next turn; away: not at all."""
        self.asked.append(key)
        if self.away:
            raise Unavailable("unavailable", "Redis does not answer.")
        link = self.links.get(key)
        asyncio.get_running_loop().call_soon(tell, None if link is None else encode_entry(link))

    def store(self, link: Link) -> None:
        """As link_service would."""
        self.links[link.key] = link


class FakeClicks(SpoolClickRecorder):
    """The recorder, on a spool in memory. `recorded`: each click, and its traceparent if its trace is kept."""

    def __init__(self, visitors: Visitors, clock: FakeClock) -> None:
        super().__init__(
            self._keep, partitions=20, visitors=visitors, now_ms=lambda: int(clock.now().timestamp() * 1000)
        )
        self.recorded: list[tuple[LinkAccessed, str | None]] = []

    @property
    def clicks(self) -> list[LinkAccessed]:
        """The clicks."""
        return [click for click, _ in self.recorded]

    def _keep(self, _partition: int, kept: bytes, traceparent: str | None) -> bool:
        self.recorded += [(click, traceparent) for click in LinksAccessed.FromString(kept).clicks]
        return True


class FakeReadRequests:
    """A ReadRequests that keeps everything."""

    def __init__(self) -> None:
        self.keys: list[LinkKey] = []

    def put(self, key: LinkKey, traceparent: str | None = None) -> bool:
        """Keeps a request."""
        self.keys.append(key)
        return True


@dataclass(slots=True)
class Door:
    """A front door and what stands behind it. `client` holds Alice's key."""

    client: httpx.AsyncClient
    peers: FakePeers
    cache: FakeLinkCache
    clicks: FakeClicks
    read_requests: FakeReadRequests
    clock: FakeClock
    front: Front
    fast: FastCreates
    lookups: Lookups
    misses: FastLookups


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorOptions:
    """What a test may want otherwise."""

    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {KEY}"})
    visitors: Visitors = field(default_factory=lambda: Visitors(b"v" * 32))
    keep_ratio: float = 0.0
    serve_unconfirmed: bool = True
    misses_per_minute: int = 0
    security_contact: str = ""
    client_address: str = "203.0.113.9"


@contextlib.asynccontextmanager
async def open_door(options: DoorOptions | None = None) -> AsyncIterator[Door]:
    """The front door on fakes."""
    wanted = options or DoorOptions()
    peers, cache, clock = FakePeers(), FakeLinkCache(), FakeClock()
    clicks = FakeClicks(wanted.visitors, clock)
    async with asyncio.TaskGroup() as tasks:
        resolver = GrpcResolver(cast("Any", Direct(peers.links)), clock=clock, tasks=tasks)
        read_requests = FakeReadRequests()
        sources = Sources(
            cache=cache,
            resolver=resolver,
            read_requests=read_requests,
            issued=IssuedCodes(None),
            budget=MissBudget(wanted.misses_per_minute),
            limits=Limits(),
            serve_unconfirmed=wanted.serve_unconfirmed,
        )
        lookups = Lookups(sources, tasks=tasks, clock=clock)
        redirects = Redirects(lookups, clicks=clicks, visitors=wanted.visitors, clock=clock)
        keys = GrpcKeys(cast("Any", Direct(peers.keys)), clock=clock, tasks=tasks)
        creator = GrpcLinkCreator(cast("Any", Direct(peers.links)), clock=clock, tasks=tasks)
        creates = Creates(keys=keys, creator=creator, resolver=lookups, public_url=PUBLIC_URL, clock=clock)
        api = make_api(
            peers=Peers(
                links=cast("Any", Direct(peers.links)),
                keys=cast("Any", Direct(peers.keys)),
                analytics=cast("Any", Direct(peers.analytics)),
                webhooks=cast("Any", Direct(peers.webhooks)),
                audit=cast("Any", Direct(peers.audit)),
            ),
            keys=keys,
            creator=creator,
            resolver=lookups,
            public_url=PUBLIC_URL,
            clock=clock,
        )
        pages = make_pages(PUBLIC_URL, api.openapi(), security_contact=wanted.security_contact, now=clock.now())
        front = Front(
            redirect=redirects.answer,
            create=creates.answer,
            api=api,
            pages=pages,
            keep_ratio=wanted.keep_ratio,
            clock=clock,
        )
        fast = FastCreates(creates, front, clock=clock)
        misses = FastLookups(redirects, front, clock=clock)
        transport = httpx.ASGITransport(cast("Any", front), client=(wanted.client_address, 40_000))
        async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=wanted.headers) as client:
            yield Door(client, peers, cache, clicks, read_requests, clock, front, fast, lookups, misses)
