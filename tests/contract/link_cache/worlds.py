"""The two worlds that the rules of Redis must hold in: the fake, and a real server with the Function library."""

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chassis.clock import SystemClock, uuid7
from chassis.redis import Redis, open_redis
from chassis.task_room import TaskRoom
from contracts.cache import LeaseToken, Mutation, lease_key, persisted_call, url_key
from contracts.link import EventId, EventType, Link, LinkEvent, LinkKey, LinkState, UserId
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import RedisOutbox
from link_service.adapters.recovery_redis import RedisRecovery
from link_service.domain.cache_gate import CacheGate
from link_service.loops.recovery import RecoveringRedis
from link_service.loops.settling import UnsettledLinks
from link_service.ports import LinkCache, Outbox
from tests.fakes.link_cache import FakeLinkCache, FakeOutbox, FakeRedis
from tests.fakes.recovery import FakeRecovery

_numbers = itertools.count(1)
_MEMORY_BYTES = 1 << 30
_BALLAST_BYTES = 32 << 20  # so that the server's own small buffers do not move its memory share


class Recoverable(RecoveringRedis, UnsettledLinks, Protocol):
    """Both ports of recovery."""


class World(Protocol):
    """A Redis with both ports, and what only a test may do to it."""

    @property
    def cache(self) -> LinkCache:
        """The links."""

    @property
    def small(self) -> LinkCache:
        """The same links, with an outbox budget that some hundred events of one bucket fill."""

    @property
    def gate(self) -> CacheGate:
        """Shut, until the test opens it."""

    @property
    def gated(self) -> LinkCache:
        """The same links, behind that gate."""

    @property
    def recovery(self) -> Recoverable:
        """Redis as those see it who put back what it may have forgotten."""

    @property
    def outbox(self) -> Outbox:
        """The outbox of these links."""

    async def persisted(self, link: Link) -> None:
        """As the writer tells it."""

    async def ttl_s(self, key: LinkKey) -> float | None:
        """For how long the value stays; None: it has no expiry."""

    async def expire(self, key: LinkKey) -> None:
        """Makes the value's expiry come true; only for values that have one."""

    async def fill_memory(self, share: float) -> None:
        """Makes this share of memory be in use, or rather the maximum fit to what is."""

    async def lease_is_held(self, key: LinkKey) -> bool:
        """Whether anybody holds the lease."""

    async def forget(self) -> None:
        """Empties Redis, which goes on running."""


Scenario = Callable[[World], Awaitable[None]]
Play = Callable[[Scenario], None]


@dataclass
class FakeWorld:
    """In memory."""

    redis: FakeRedis
    cache: FakeLinkCache
    small: FakeLinkCache
    gate: CacheGate
    gated: FakeLinkCache
    recovery: FakeRecovery
    outbox: FakeOutbox

    async def persisted(self, link: Link) -> None:
        await self.cache.persisted(link)

    async def ttl_s(self, key: LinkKey) -> float | None:
        until = self.redis.values[key][1]
        return None if until is None else until - self.redis.clock.monotonic()

    async def expire(self, key: LinkKey) -> None:
        assert await self.ttl_s(key) is not None
        del self.redis.values[key]

    async def fill_memory(self, share: float) -> None:
        self.redis.memory_share = share

    async def lease_is_held(self, key: LinkKey) -> bool:
        return self.redis.clock.monotonic() < self.redis.leases.get(key, (b"", 0.0))[1]

    async def forget(self) -> None:
        self.recovery.come_back(self.redis.run_id)


@dataclass
class RealWorld:
    """A server of the Redis protocol."""

    client: Redis
    cache: RedisLinkCache
    small: RedisLinkCache
    gate: CacheGate
    gated: RedisLinkCache
    recovery: RedisRecovery
    outbox: RedisOutbox

    async def persisted(self, link: Link) -> None:
        await self.client.fcall(*persisted_call(link).arguments)  # type: ignore[arg-type]  # its stubs know str only

    async def ttl_s(self, key: LinkKey) -> float | None:
        milliseconds = await self.client.pttl(url_key(key))
        return None if milliseconds == -1 else milliseconds / 1000

    async def expire(self, key: LinkKey) -> None:
        assert await self.ttl_s(key) is not None
        await self.client.pexpire(url_key(key), 0)

    async def fill_memory(self, share: float) -> None:
        if not await self.client.exists("ballast"):  # a full server would refuse even to write it again
            await self.client.setrange("ballast", _BALLAST_BYTES, "x")  # through no connection's buffers
        used = (await self.client.info("memory"))["used_memory"]
        await self.client.config_set("maxmemory", int(used / share))
        await self.forget_memory()

    async def forget_memory(self) -> None:
        """Waits until the library looks at its memory anew, which it does at most each 100 ms by Redis' clock."""
        start = await self.cache.now()

        async def passed() -> bool:
            return (await self.cache.now() - start).total_seconds() > 0.12

        await until(passed)

    async def lease_is_held(self, key: LinkKey) -> bool:
        return bool(await self.client.exists(lease_key(key)))

    async def forget(self) -> None:
        await self.client.flushall()


@contextlib.asynccontextmanager
async def fake_world() -> AsyncIterator[World]:
    """A new one."""
    redis, gate = FakeRedis(SystemClock()), CacheGate()
    yield FakeWorld(
        redis,
        cache=FakeLinkCache(redis),
        small=FakeLinkCache(redis, outbox_entries_max=50),
        gate=gate,
        gated=FakeLinkCache(redis, gate=gate),
        recovery=FakeRecovery(redis),
        outbox=FakeOutbox(redis),
    )


@contextlib.asynccontextmanager
async def real_world(url: str) -> AsyncIterator[World]:
    """On a running server, emptied. The deadlines are long: these tests are about verdicts, on a busy machine."""
    clock = SystemClock()
    async with open_redis(url, timeout_s=5) as client, TaskRoom() as room:
        # SYNC: memory that is still being freed in the background would count as in use for a while
        await client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]  # the library forgot
        memory = await client.config_get("maxmemory")
        await client.config_set("maxmemory", _MEMORY_BYTES)

        def cache(outbox_bytes_max: int = 0, gate: CacheGate | None = None) -> RedisLinkCache:
            return RedisLinkCache(
                reads=client,
                mutations=client,
                clock=clock,
                read_timeout_s=5,
                mutate_timeout_s=5,
                outbox_bytes_max=outbox_bytes_max,
                gate=gate,
                room=room,
            )

        gate = CacheGate()
        world = RealWorld(
            client,
            cache=cache(),
            small=cache(16 * 100_000),
            gate=gate,
            gated=cache(gate=gate),
            recovery=RedisRecovery(client, clock=clock),
            outbox=RedisOutbox(client, clock=clock),
        )
        if memory["maxmemory"] != str(_MEMORY_BYTES):
            await world.forget_memory()
        yield world


async def until(holds: Callable[[], Awaitable[bool]], *, timeout_s: float = 10.0) -> None:
    """Waits until a condition holds; fails when it never does."""
    deadline = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < deadline, "it never came true"
        await SystemClock().sleep(0.01)


def new_link(code: str = "", *, version: int = 1, state: LinkState = LinkState.ACTIVE) -> Link:
    """A link under a code that no other test has, made now."""
    now = SystemClock().now()
    return Link(
        short_code=code or f"code-{next(_numbers)}",
        long_url="https://example.org/",
        user_id=UserId("ada"),
        version=version,
        event_id=EventId(uuid7(now)),
        created_at=now,
        updated_at=now,
        state=state,
        deleted_at=now if state is LinkState.DELETED else None,
    )


def next_of(link: Link, *, state: LinkState = LinkState.ACTIVE) -> Link:
    """The next version of a link, by another event."""
    return new_link(link.short_code, version=link.version + 1, state=state)


def mutation_of(
    link: Link,
    *,
    generated: bool = False,
    token: LeaseToken | None = None,
    not_after: datetime | None = None,
    remember: bool = False,
) -> Mutation:
    """The mutation that makes this version of its predecessor."""
    kind = EventType.CREATED if link.version == 1 else EventType.UPDATED
    event = LinkEvent(
        type=kind, event_id=link.event_id, version=link.version, at=link.updated_at, user_id=link.user_id, link=link
    )
    return Mutation(
        event=event,
        base_version=link.version - 1,
        generated=generated,
        token=token,
        not_after=not_after,
        remember=remember,
    )
