"""Look-ups on a real Redis that tells of changes, with link_service played in memory."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from chassis.breaker import Breaker
from chassis.clock import SystemClock, uuid7
from chassis.errors import Unavailable
from chassis.redis import Redis, open_redis
from contracts.cache import encode_entry, url_key
from contracts.codes import CodePermutation
from contracts.link import Link, LinkKey
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.adapters.redis_pipe import RedisPipe
from gateway.adapters.tracking_redis import RedisTracking
from gateway.domain.issued import IssuedCodes
from gateway.domain.misses import MissBudget
from gateway.domain.near_cache import TURN_S, Limits
from gateway.handlers.lookups import Looked, Lookups, Sources
from gateway.ports import Resolved
from linkmesh.local.engines import ValkeyEngine
from tests.fakes.gateway_ports import FakeReadRequests

CODES = CodePermutation(b"k" * 32)
_PATIENCE_S = 2.0  # of reads: a busy machine may miss the product's 50 ms
_POLL_S = 0.01


@dataclass(slots=True)
class FakeResolver:
    """link_service: links in a dictionary. `away`: no answer."""

    links: dict[LinkKey, Link] = field(default_factory=dict)
    asked: list[LinkKey] = field(default_factory=list)
    away: bool = False

    async def resolve(self, key: LinkKey) -> Resolved:
        """What it knows."""
        self.asked.append(key)
        if self.away:
            raise Unavailable("unavailable", "Away.")
        return Resolved(self.links.get(key))

    def forget(self, key: LinkKey) -> None:
        """Flights are not shared here."""


@dataclass(frozen=True, slots=True)
class Rig:
    """The look-ups under test, what they ask, and a client of the test's own."""

    lookups: Lookups
    resolver: FakeResolver
    read_requests: FakeReadRequests
    redis: Redis
    cache: RedisLinkCache

    async def store(self, link: Link) -> None:
        """As link_service would, on a connection of its own: the one before may have died with its Redis."""
        await self.redis.connection_pool.disconnect()
        await self.redis.set(url_key(link.key), encode_entry(link))

    def served(self, link: Link) -> bool:
        """Whether this redirect is answered without asking anybody."""
        ready = self.lookups.get(b"/" + link.key.encode())
        return ready is not None and link.long_url.encode() in ready.answer

    async def look(self, key: LinkKey) -> Looked:
        """A look-up that a busy machine does not fail."""
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Unavailable):
                    return await self.lookups.look_up(key)
                await asyncio.sleep(_POLL_S)

    async def keep(self, link: Link) -> None:
        """Looks a link up until it is kept."""
        async with asyncio.timeout(20):
            while not self.served(link):
                await self.look(link.key)
                await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def open_rig(engine: ValkeyEngine, *, timeout_s: float = _PATIENCE_S) -> AsyncIterator[Rig]:
    """Look-ups that hear of changes."""
    clock, stop = SystemClock(), asyncio.Event()
    trackings: list[RedisTracking] = []

    def see_run(run: str) -> None:
        for tracking in trackings:
            tracking.saw_run(run)

    async with (
        open_redis(engine.url, timeout_s=5) as redis,
        open_redis(engine.url, timeout_s=timeout_s, protocol=2) as reads,
        open_redis(engine.url, timeout_s=1, protocol=2) as channel,
        asyncio.TaskGroup() as tasks,
        RedisPipe(reads, clock=clock, tasks=tasks, timeout_s=timeout_s, on_run=see_run) as pipe,
        RedisPipe(channel, clock=clock, tasks=tasks, timeout_s=1) as beats,
    ):
        resolver, read_requests, cache = (
            FakeResolver(),
            FakeReadRequests(),
            RedisLinkCache(pipe, breaker=Breaker(clock)),
        )
        sources = Sources(
            cache=cache,
            resolver=resolver,
            read_requests=read_requests,
            issued=IssuedCodes(CODES),
            budget=MissBudget(0),
            limits=Limits(),
        )
        lookups = Lookups(sources, tasks=tasks, clock=clock)
        trackings.append(
            RedisTracking(channel, beats, lookups, name=uuid7(clock.now()), turn_s=TURN_S, clock=clock, reads=pipe)
        )
        running = tasks.create_task(trackings[0].run(stop))
        try:
            yield Rig(lookups, resolver, read_requests, redis, cache)
        finally:
            stop.set()
            await running


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Waits for what must come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(_POLL_S)
