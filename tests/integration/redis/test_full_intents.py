"""What idempotency keys stand for when Redis is full: a repeat gets its answer, and what was refused leaves no tie."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from chassis.clock import SystemClock, uuid7
from chassis.redis import Redis, open_redis
from contracts.link import EventId, LinkKey, UserId
from link_service.adapters.intents_redis import RedisIntents
from link_service.adapters.redis_line import RedisLine
from link_service.domain.intents import Intent
from linkmesh.local.engines import ValkeyEngine

_BALLAST_BYTES = 32 << 20  # so that the server's own buffers do not move its share
ADA = UserId("ada")
CLOCK = SystemClock()


def intent(body_hash: str = "hash") -> Intent:
    """One that nobody else has."""
    now = CLOCK.now()
    return Intent(
        body_hash=body_hash,
        event_id=EventId(uuid7(now)),
        key=LinkKey("abc"),
        not_after=now + timedelta(seconds=30),
    )


def play(valkey: ValkeyEngine, scenario: Callable[[RedisIntents, Redis], Awaitable[None]]) -> None:
    """Runs a scenario on a server with ballast in it."""

    async def main() -> None:
        async with open_redis(valkey.url, timeout_s=5) as client:
            await client.setrange("ballast", _BALLAST_BYTES, "x")
            await scenario(RedisIntents(RedisLine(client, clock=CLOCK, timeout_s=5)), client)

    asyncio.run(main())


async def overfill(client: Redis) -> None:
    """From now on Redis refuses every command that takes memory."""
    used = (await client.info("memory"))["used_memory"]
    await client.config_set("maxmemory", int(used / 1.2))


@pytest.mark.rule("I1", "R6")
def test_a_full_redis_tells_what_a_key_stands_for(valkey_fresh: ValkeyEngine) -> None:
    """I1, R6: a repeat of what was applied before Redis was full is carried on and gets its answer, and one that came
    too late gets another event: neither may hear that there is no room."""

    async def scenario(intents: RedisIntents, client: Redis) -> None:
        first, again, later = intent(), intent(), intent()
        await intents.begin(ADA, "k", first)
        await overfill(client)

        assert await intents.begin(ADA, "k", again) == first
        assert await intents.swap(ADA, "k", old=first, new=later) == later
        assert await intents.begin(ADA, "k", again) == later

    play(valkey_fresh, scenario)


@pytest.mark.rule("I3", "R6")
def test_what_a_full_redis_refuses_leaves_no_tie(valkey_fresh: ValkeyEngine) -> None:
    """I3, R6: each carrier takes itself off and the last one the tie, which makes room; a key that is new is tied to
    its event for as long as its refusal takes, so that it is told as certainly as without one."""

    async def scenario(intents: RedisIntents, client: Redis) -> None:
        tied, new = intent(), intent()
        await intents.begin(ADA, "k", tied)
        await intents.begin(ADA, "k", tied)
        await overfill(client)

        assert not await intents.give_up(ADA, "k", tied)
        assert await intents.give_up(ADA, "k", tied)
        assert await intents.begin(ADA, "new", new) == new
        assert await intents.give_up(ADA, "new", new)

        assert await client.keys("idem:*") == []

    play(valkey_fresh, scenario)
