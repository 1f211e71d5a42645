"""What every LinkCache of the gateway does, the one in memory and the one on Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from chassis.breaker import Breaker
from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.redis import open_redis
from contracts.cache import encode_entry, url_key
from contracts.link import LinkKey, LinkState
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.ports import LinkCache
from linkmesh.local.engines import ValkeyEngine
from tests.fakes.gateway_peers import make_link
from tests.fakes.gateway_ports import FakeLinkCache

_PATIENCE_S = 0.5  # what is proved here holds for any deadline, and a busy machine may miss the product's 50 ms


@dataclass(frozen=True, slots=True)
class Bench:
    """A cache, and what the world does to it."""

    cache: LinkCache
    store: Callable[[str, bytes], Awaitable[None]]  # a value under a code
    leave: Callable[[], None]  # nobody answers any more


@contextlib.asynccontextmanager
async def fake_bench() -> AsyncIterator[Bench]:
    """The fake: it keeps links, not bytes, so a value that is none is none."""
    cache = FakeLinkCache()

    async def store(code: str, value: bytes) -> None:
        links = [
            link for link in (make_link(code), make_link(code, state=LinkState.DELETED)) if encode_entry(link) == value
        ]
        for link in links:
            cache.store(link)

    def leave() -> None:
        cache.away = True

    yield Bench(cache, store, leave)


@contextlib.asynccontextmanager
async def redis_bench(engine: ValkeyEngine) -> AsyncIterator[Bench]:
    """A real Redis."""
    async with (
        open_redis(engine.url, timeout_s=5) as writer,
        open_redis(engine.url, timeout_s=_PATIENCE_S) as redis,
        asyncio.TaskGroup() as tasks,
    ):

        async def store(code: str, value: bytes) -> None:
            await writer.set(url_key(LinkKey(code)), value)

        yield Bench(
            RedisLinkCache(redis, breaker=Breaker(SystemClock()), tasks=tasks, timeout_s=_PATIENCE_S),
            store,
            engine.pause,
        )


@pytest.fixture(params=["fake", "redis"])
def bench(request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractAsyncContextManager[Bench]]:
    """Each kind of cache."""
    if request.param == "fake":
        return fake_bench
    engine: ValkeyEngine = request.getfixturevalue("valkey_fresh")
    return lambda: redis_bench(engine)


MakeBench = Callable[[], contextlib.AbstractAsyncContextManager[Bench]]


@pytest.mark.rule("P2")
def test_values_are_read(bench: MakeBench) -> None:
    """A stored link comes back whole, a tombstone as a deleted link, an absent one as None, each under its own key."""

    async def main() -> None:
        async with bench() as it:
            active, deleted = make_link("active1"), make_link("deleted", state=LinkState.DELETED)
            await it.store("active1", encode_entry(active))
            await it.store("deleted", encode_entry(deleted))
            async with asyncio.TaskGroup() as tasks:
                reads = [
                    tasks.create_task(it.cache.get(LinkKey(code))) for code in ("deleted", "absent1", "active1") * 3
                ]

            assert [read.result() for read in reads] == [deleted, None, active] * 3

    asyncio.run(main())


def test_a_corrupt_value_is_a_miss(bench: MakeBench) -> None:
    """Bytes that are no link are None, and do not disturb their neighbours."""

    async def main() -> None:
        async with bench() as it:
            await it.store("corrupt", b"\x01garbage")
            await it.store("active1", encode_entry(make_link("active1")))
            async with asyncio.TaskGroup() as tasks:
                reads = [tasks.create_task(it.cache.get(LinkKey(code))) for code in ("corrupt", "active1")]

            assert [read.result() for read in reads] == [None, make_link("active1")]

    asyncio.run(main())


@pytest.mark.rule("R7", "P5")
def test_while_it_is_away_everybody_hears_so(bench: MakeBench) -> None:
    """A cache that hangs raises Unavailable within its deadline for all who ask, never None."""

    async def main() -> None:
        async with bench() as it:
            it.leave()
            for _ in range(2):
                async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
                    reads = [tasks.create_task(_refused(it.cache)) for _ in range(20)]

                assert all(read.result() for read in reads)

    asyncio.run(main())


async def _refused(cache: LinkCache) -> bool:
    try:
        await cache.get(LinkKey("active1"))
    except Unavailable:
        return True
    return False
