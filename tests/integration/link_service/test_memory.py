"""R6 from the outside: what a Redis that fills up refuses, and that all is well when it has room again."""

import pytest

from chassis.clock import SystemClock
from chassis.errors import ServiceError, Unavailable
from chassis.redis import Redis, open_redis
from contracts.cache import outbox_aside_key, outbox_key
from tests.integration.link_service.running import Engines, Gateway, Play, ServiceProcess, until, works

_BALLAST_BYTES = 48 << 20  # so that the server's own buffers do not move its share


async def fill(client: Redis, share: float) -> None:
    """Makes this share of memory be in use, or rather the maximum fit to what is."""
    used = (await client.info("memory"))["used_memory"]
    await client.config_set("maxmemory", int(used / share))


async def refused(call: object) -> bool:
    """Whether a call is 503 with a time to come again."""
    try:
        await call  # type: ignore[misc]  # any call of the gateway's
    except Unavailable as exc:
        return exc.reason == "unavailable" and bool(exc.retry_after_s)
    return False


@pytest.mark.rule("R6", "P7")
def test_a_redis_that_fills_up_refuses_creates_first_and_then_all_changes(play: Play, engines: Engines) -> None:
    """R6: at 85 % creates are 503, deletes go on; at 95 % these, too; look-ups go on all the while; beyond 100 % the
    relay still sends, trims, and sets aside what cannot be read. With room again everything goes on by itself."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        async with open_redis(engines.valkey.url, timeout_s=5) as client:
            await client.setrange("ballast", _BALLAST_BYTES, "x")
            codes = [await created(caller) for _ in range(4)]

            await fill(client, 0.88)
            await until(lambda: refused(caller.create()))
            await until(works(lambda: caller.delete(codes[0])))
            assert (await caller.resolve(codes[1], timeout_s=2)).link.short_code == codes[1]
            await until(lambda: meter_shows(service, 0.85, 0.92))

            await fill(client, 0.97)
            await until(lambda: refused(caller.delete(codes[1])))
            assert await refused(caller.create())
            assert (await caller.resolve(codes[1], timeout_s=2)).link.short_code == codes[1]

            await client.xadd(outbox_key(3), {"e": b"nobody can read this"})
            await fill(client, 1.2)
            await until(lambda: is_aside(client))
            await until(lambda: is_drained(client))
            assert service.metric("relay_entries_set_aside_total") == 1

            await fill(client, 0.4)
            await until(works(lambda: caller.delete(codes[1])))
            await until(works(caller.create))
            await until(lambda: meter_shows(service, 0.0, 0.6))
            assert "creates are refused" in service.log

    play(scenario)


async def created(caller: Gateway) -> str:
    """The code of a new link."""
    for _ in range(20):
        try:
            return (await caller.create()).link.short_code
        except ServiceError:
            await SystemClock().sleep(0.5)
    return (await caller.create()).link.short_code


async def meter_shows(service: ServiceProcess, least: float, most: float) -> bool:
    """Whether the memory meter is in this range."""
    return least <= service.metric("redis_memory_used_ratio") <= most


async def is_aside(client: Redis) -> bool:
    """Whether the unreadable entry stands where a person finds it."""
    return bool(await client.xlen(outbox_aside_key(3)))


async def is_drained(client: Redis) -> bool:
    """Whether the stream that it stood in is empty."""
    return await client.xlen(outbox_key(3)) == 0
