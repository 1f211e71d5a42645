"""O3: the budget that nobody has set, on a real server."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chassis.clock import SystemClock
from chassis.redis import Redis, open_redis
from contracts.cache import BUCKETS, OUTBOX_OF_MEMORY, mutate_call, outbox_key
from contracts.link import Link, LinkState, bucket_of
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from link_service.ports import Done, Full
from linkmesh.local.engines import ValkeyEngine
from tests.contract.link_cache.worlds import mutation_of, new_link, next_of

MEMORY_BYTES = 64 << 20
BUDGET_BYTES = MEMORY_BYTES * OUTBOX_OF_MEMORY / BUCKETS


def links_of_one_bucket() -> Iterator[Link]:
    """New links with long URLs, all of bucket 0."""
    for number in itertools.count():
        link = new_link(f"budget-{number}")
        if bucket_of(link.key) == 0:
            yield replace(link, long_url="https://example.org/" + "a" * 2000)


@pytest.mark.rule("O3")
def test_without_a_budget_of_its_own_the_outbox_has_a_share_of_memory(valkey_fresh: ValkeyEngine) -> None:
    """O3: creates are refused at nine tenths of it, deletes have the rest; when the relay has made room, both go on."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=ANSWER_TIMEOUT_S) as client:
            await client.config_set("maxmemory", MEMORY_BYTES)
            clock = SystemClock()
            cache = RedisLinkCache(reads=client, mutations=client, clock=clock, read_timeout_s=5, mutate_timeout_s=5)
            outbox = RedisOutbox(client, clock=clock)

            async def used() -> float:
                return (await client.memory_usage(outbox_key(0)) or 0) / BUDGET_BYTES

            made: list[Link] = []
            for link in links_of_one_bucket():
                verdict = await cache.mutate(mutation_of(link, generated=True))
                if isinstance(verdict, Full):
                    break
                made.append(link)
            assert verdict == Full("outbox")
            assert 0.9 <= await used() < 0.95
            another = next(link for link in (new_link() for _ in range(1000)) if bucket_of(link.key) != 0)
            assert await cache.mutate(mutation_of(another, generated=True)) == Done(another), "each stream has its own"

            deleted = 0
            for link in made:
                ended = replace(next_of(link, state=LinkState.DELETED), long_url=link.long_url)
                verdict = await cache.mutate(mutation_of(ended))
                if isinstance(verdict, Full):
                    break
                deleted += 1
            assert verdict == Full("outbox")
            assert deleted >= 10
            assert 1.0 <= await used() < 1.05

            while entries := await outbox.read(wait_s=0.01):
                await outbox.trim({entry.bucket: entry.position for entry in entries})
            following = next_of(made[-1])
            assert await cache.mutate(mutation_of(following)) == Done(following)
            fresh = new_link()
            assert await cache.mutate(mutation_of(fresh, generated=True)) == Done(fresh)

    asyncio.run(main())


@pytest.mark.rule("O3", "R6")
def test_an_hour_without_kafka_fits_into_the_memory_of_development(valkey_fresh: ValkeyEngine) -> None:
    """O3: 720 000 creates of common size, with a trace, take less than creates may use of the outbox' budget, and with
    the links beside them less than creates may use of 1 GiB. Measured at 20 000, by what Redis gives back."""
    count, hour, memory_bytes = 20_000, 3_600 * 200, 1 << 30
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=30) as client:
            await FunctionLibrary(client).load()
            empty = await used_bytes(client)
            for first in range(0, count, 1000):
                pipeline = client.pipeline(transaction=False)
                for number in range(first, first + 1000):
                    link = replace(new_link(f"{number:07d}"), long_url="https://example.org/" + "a" * 40)
                    mutation = replace(mutation_of(link, generated=True), traceparent=trace)
                    pipeline.execute_command("FCALL", *mutate_call(mutation, outbox_bytes_max=0).arguments)
                assert all(reply == [b"APPLIED"] for reply in await pipeline.execute())
            metered = (await RedisOutbox(client, clock=SystemClock()).depth()).size_bytes
            both = await used_bytes(client) - empty
            for bucket in range(BUCKETS):
                await client.delete(outbox_key(bucket))
            outbox = both - (await used_bytes(client) - empty)

            assert metered == pytest.approx(outbox, rel=0.2), "the meter shows what it takes"
            assert outbox / count * hour < 0.9 * OUTBOX_OF_MEMORY * memory_bytes
            assert both / count * hour < 0.6 * memory_bytes

    asyncio.run(main())


async def used_bytes(client: Redis) -> int:
    """All memory that Redis holds."""
    return int((await client.info("memory"))["used_memory"])
