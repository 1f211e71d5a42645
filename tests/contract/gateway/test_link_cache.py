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
from contracts.cache import decode_entry, encode_entry, url_key
from contracts.link import LinkKey, LinkState
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.adapters.redis_pipe import RedisPipe
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
    """The fake."""
    cache = FakeLinkCache()

    async def store(code: str, value: bytes) -> None:
        cache.store(decode_entry(value))

    def leave() -> None:
        cache.away = True

    yield Bench(cache, store, leave)


@contextlib.asynccontextmanager
async def redis_bench(engine: ValkeyEngine) -> AsyncIterator[Bench]:
    """A real Redis."""
    async with (
        open_redis(engine.url, timeout_s=5) as writer,
        open_redis(engine.url, timeout_s=_PATIENCE_S, protocol=2) as redis,
        asyncio.TaskGroup() as tasks,
        RedisPipe(redis, clock=SystemClock(), tasks=tasks, timeout_s=_PATIENCE_S) as pipe,
    ):

        async def store(code: str, value: bytes) -> None:
            await writer.set(url_key(LinkKey(code)), value)

        yield Bench(RedisLinkCache(pipe, breaker=Breaker(SystemClock())), store, engine.pause)


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
    """A stored value comes back whole, a tombstone, too, an absent one as None, each under its own key, and later."""

    async def main() -> None:
        async with bench() as it:
            active, deleted = make_link("active1"), make_link("deleted", state=LinkState.DELETED)
            await it.store("active1", encode_entry(active))
            await it.store("deleted", encode_entry(deleted))
            async with asyncio.TaskGroup() as tasks:
                reads = [
                    tasks.create_task(value_of(it.cache, LinkKey(code)))
                    for code in ("deleted", "absent1", "active1") * 3
                ]

            assert [read.result() for read in reads] == [encode_entry(deleted), None, encode_entry(active)] * 3

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


async def value_of(cache: LinkCache, key: LinkKey) -> bytes | None:
    """What it tells, which must not be before `begin` has returned.

    Raises:
        Unavailable: it told so, or was not asked.
    """
    told: asyncio.Future[bytes | Unavailable | None] = asyncio.get_running_loop().create_future()
    cache.begin(key, told.set_result)
    assert not told.done()
    value = await told
    if isinstance(value, Unavailable):
        raise value
    return value


async def _refused(cache: LinkCache) -> bool:
    try:
        await value_of(cache, LinkKey("active1"))
    except Unavailable:
        return True
    return False
