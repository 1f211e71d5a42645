"""Where the outbox begins and ends: what is trimmed to the entry, and a budget that is used up at once."""

import asyncio

import pytest

from chassis.clock import SystemClock
from chassis.redis import open_redis
from contracts.cache import OUTBOX_FIELD, outbox_key
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import RedisOutbox
from link_service.ports import Done, Full
from linkmesh.local.engines import ValkeyEngine
from tests.contract.link_cache.worlds import mutation_of, new_link

_BUCKETS_BYTES = 16  # one byte a bucket
_SEVERAL_AT_ONCE = "for number = 1, 3 do redis.call('XADD', KEYS[1], '*', ARGV[1], number) end"  # in one millisecond


@pytest.mark.rule("O1", "P1")
def test_of_entries_of_one_millisecond_only_those_that_are_meant_are_trimmed(valkey_fresh: ValkeyEngine) -> None:
    """O1: a busy Redis gives many events the same time; trimming through one of them leaves the next one."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as client:
            outbox = RedisOutbox(client, clock=SystemClock())
            await client.eval(_SEVERAL_AT_ONCE, 1, outbox_key(3), OUTBOX_FIELD)
            first, second, third = await outbox.read(wait_s=0.01)
            assert first.position[0] == third.position[0]

            await outbox.trim({3: first.position})

            assert await outbox.read(wait_s=0.01) == [second, third]

    asyncio.run(main())


@pytest.mark.rule("O3")
def test_an_outbox_at_its_budget_takes_nothing_more(valkey_fresh: ValkeyEngine) -> None:
    """O3: the first event of a bucket is larger than its budget here, so the second one is refused."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as client:
            cache = RedisLinkCache(
                reads=client,
                mutations=client,
                clock=SystemClock(),
                read_timeout_s=5,
                mutate_timeout_s=5,
                outbox_bytes_max=_BUCKETS_BYTES,
            )
            first = new_link()
            assert await cache.mutate(mutation_of(first, generated=True)) == Done(first)

            verdicts = [await cache.mutate(mutation_of(new_link(), generated=True)) for _ in range(200)]

            assert sum(isinstance(verdict, Done) for verdict in verdicts) <= 15  # the first of each other bucket
            assert Full("outbox") in verdicts

    asyncio.run(main())
