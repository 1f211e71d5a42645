"""Look-ups in a real Redis: how many commands they are, and what a hung or refused one costs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from chassis.breaker import Breaker
from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.redis import Redis, open_redis
from contracts.cache import encode_entry, url_key
from contracts.link import LinkKey
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.adapters.redis_pipe import RedisPipe
from linkmesh.local.engines import ValkeyEngine
from tests.fakes.gateway_peers import make_link
from tests.fakes.gateway_ports import FakeClock

_PATIENCE_S = 5.0  # where commands are counted, not time: a busy machine may miss the product's 50 ms
_DEADLINE_S = 0.5
CODES = [LinkKey(f"batch{number:03d}") for number in range(200)]


@contextlib.asynccontextmanager
async def open_cache(
    engine: ValkeyEngine, breaker: Breaker | None = None, *, timeout_s: float = _PATIENCE_S
) -> AsyncIterator[tuple[RedisLinkCache, Redis]]:
    """A cache, and a client to look behind it."""
    async with (
        open_redis(engine.url, timeout_s=5) as redis,
        open_redis(engine.url, timeout_s=timeout_s, protocol=2) as read_only,
        asyncio.TaskGroup() as tasks,
        RedisPipe(read_only, clock=SystemClock(), tasks=tasks, timeout_s=timeout_s) as pipe,
    ):
        yield RedisLinkCache(pipe, breaker=breaker or Breaker(SystemClock())), redis


async def get_all(cache: RedisLinkCache, codes: list[LinkKey]) -> list[object]:
    """Looks for all of them in one turn of the loop; failures are values."""

    reads: list[asyncio.Future[object]] = [asyncio.get_running_loop().create_future() for _ in codes]
    for code, read in zip(codes, reads, strict=True):
        try:
            cache.begin(code, read.set_result)
        except Unavailable as exc:
            read.set_result(exc)
    return [await read for read in reads]


async def mgets(redis: Redis) -> int:
    """How many MGETs the server has had."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_mget", {}).get("calls", 0))


@pytest.mark.rule("R7")
def test_lookups_of_one_turn_are_one_command(valkey_fresh: ValkeyEngine) -> None:
    """Two hundred look-ups at once are one MGET; each gets its own value; a wrong type is a miss."""

    async def main() -> None:
        async with open_cache(valkey_fresh) as (cache, redis):
            for code in CODES[:100]:
                await redis.set(url_key(code), encode_entry(make_link(code)))
            await redis.lpush(url_key(CODES[150]), "a list")
            before = await mgets(redis)

            found = await get_all(cache, CODES)

            assert found == [encode_entry(make_link(code)) for code in CODES[:100]] + [None] * 100
            assert await mgets(redis) == before + 1

    asyncio.run(main())


def test_a_flood_goes_in_bounded_commands(valkey_fresh: ValkeyEngine) -> None:
    """More than 512 look-ups are several MGETs; beyond 8192 waiting ones the rest hears at once that it is too many."""

    async def main() -> None:
        async with open_cache(valkey_fresh) as (cache, redis):
            before = await mgets(redis)

            found = await get_all(cache, [LinkKey(f"flood{number:05d}") for number in range(8192 + 10)])

            assert found[:8192] == [None] * 8192
            assert all(isinstance(value, Unavailable) for value in found[8192:])
            assert await mgets(redis) == before + 16

    asyncio.run(main())


@pytest.mark.rule("R7", "P5")
def test_nobody_waits_twice_for_a_hung_redis(valkey_fresh: ValkeyEngine) -> None:
    """The first look-up waits its deadline, later ones not at all; a second on one tries; when it answers, all do."""

    async def main() -> None:
        clock, loop = FakeClock(), asyncio.get_running_loop()
        async with open_cache(valkey_fresh, Breaker(clock), timeout_s=_DEADLINE_S) as (cache, redis):
            await redis.set(url_key(CODES[0]), encode_entry(make_link(CODES[0])))
            assert await get_all(cache, CODES[:1]) == [encode_entry(make_link(CODES[0]))]
            valkey_fresh.pause()
            try:
                began = loop.time()
                assert isinstance((await get_all(cache, CODES[:1]))[0], Unavailable)
                waited_s = loop.time() - began
                refused_at_once = await get_all(cache, CODES)
                spent_s = loop.time() - began - waited_s
                clock.elapsed_s = 1.0
                trial = await get_all(cache, CODES[:3])
            finally:
                valkey_fresh.resume()
            clock.elapsed_s = 2.0
            recovering = await get_all(cache, CODES[:1])

            assert _DEADLINE_S * 0.9 <= waited_s < _DEADLINE_S + 1
            assert all(isinstance(value, Unavailable) for value in refused_at_once + trial)
            assert spent_s < _DEADLINE_S  # two hundred refusals in less than one deadline
            assert recovering == [encode_entry(make_link(CODES[0]))]

    asyncio.run(main())


@pytest.mark.rule("P7")
def test_a_redis_that_comes_back_is_found_again(valkey_fresh: ValkeyEngine) -> None:
    """Killed: look-ups fail at once. Started again: within two seconds they are answered."""

    async def main() -> None:
        clock = SystemClock()
        async with open_cache(valkey_fresh) as (cache, redis):
            await redis.set(url_key(CODES[0]), encode_entry(make_link(CODES[0])))
            valkey_fresh.kill()
            assert isinstance((await get_all(cache, CODES[:1]))[0], Unavailable)

            await valkey_fresh.start()

            async with asyncio.timeout(5):
                while await get_all(cache, CODES[:1]) != [encode_entry(make_link(CODES[0]))]:
                    await clock.sleep(0.05)

    asyncio.run(main())
