"""A master that was a replica for a while: its process and its run id are the same, its data may be another's [R8]."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from chassis.clock import SystemClock
from chassis.redis import Redis, open_redis
from contracts.link import LinkKey
from link_service.adapters.cache_server_redis import RedisCacheServer
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import RedisOutbox
from link_service.adapters.recovery_redis import RedisRecovery
from link_service.adapters.redis_line import RedisLine
from link_service.domain.cache_gate import CacheGate
from link_service.ports import Done, Restoring
from linkmesh.local.engines import ValkeyEngine
from linkmesh.local.ports import free_port
from tests.contract.link_cache.worlds import mutation_of, new_link, until
from tests.engines import running, state_folder

CLOCK = SystemClock()


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyEngine]:
    """A second Redis."""
    with running(ValkeyEngine(state_folder(tmp_path_factory, "valkey"), free_port())) as engine:
        yield engine


@contextlib.asynccontextmanager
async def both(first: ValkeyEngine, second: ValkeyEngine) -> AsyncIterator[tuple[Redis, Redis]]:
    """Clients of the two."""
    async with open_redis(first.url, timeout_s=5) as one, open_redis(second.url, timeout_s=5) as two:
        yield one, two


async def follow(replica: Redis, master: ValkeyEngine) -> None:
    """Makes it a replica, and waits until it has all that the master has."""
    await replica.replicaof("127.0.0.1", str(master.port))

    async def is_up() -> bool:
        found = await replica.info("replication")
        return found["master_link_status"] == "up" and not found["master_sync_in_progress"]

    await until(is_up, timeout_s=60)


async def promote(replica: Redis) -> None:
    """Makes it a master."""
    await replica.replicaof("NO", "ONE")


@pytest.mark.rule("R8", "P1", "P2")
def test_a_master_that_has_been_a_replica_is_another_run(valkey_fresh: ValkeyEngine, other: ValkeyEngine) -> None:
    """R8: A is restored, B is promoted from a copy of it, A acknowledges one more link, becomes B's replica and master
    again. It has lost that link, and so must neither pass for restored nor take a change of those who stood on it."""

    async def main() -> None:
        async with both(valkey_fresh, other) as (a, b):
            recovery = RedisRecovery(a, clock=CLOCK)
            await follow(b, valkey_fresh)
            before = (await recovery.standing()).run_id
            assert await recovery.complete(before, unsettled={})
            assert await a.wait(1, 30_000) == 1
            await promote(b)
            gate = CacheGate()
            gate.open(before)
            cache = RedisLinkCache(reads=a, mutations=a, clock=CLOCK, read_timeout_s=5, mutate_timeout_s=5, gate=gate)
            lost = new_link()
            assert await cache.mutate(mutation_of(lost, generated=True)) == Done(lost)

            await follow(a, other)
            await promote(a)

            assert await cache.get(LinkKey(lost.key)) is None, "or nothing was lost here"
            standing = await recovery.standing()
            assert standing.run_id != before
            assert not standing.restored
            with pytest.raises(Restoring):
                await cache.mutate(mutation_of(new_link(), generated=True))
            with pytest.raises(Restoring):
                await cache.lease(lost.key)

    asyncio.run(main())


@pytest.mark.rule("O1", "P1")
def test_what_was_read_in_one_run_trims_nothing_in_another(valkey_fresh: ValkeyEngine, other: ValkeyEngine) -> None:
    """O1, R8: between send and trim another data set took the place: its entries may stand at the same positions, and
    nobody has sent them."""

    async def main() -> None:
        async with both(valkey_fresh, other) as (a, b):
            mine, theirs = new_link(), new_link()
            for client, link in ((b, theirs), (a, mine)):  # the second one's positions are higher
                cache = RedisLinkCache(
                    reads=client, mutations=client, clock=CLOCK, read_timeout_s=5, mutate_timeout_s=5
                )
                assert isinstance(await cache.mutate(mutation_of(link, generated=True)), Done)
            outbox = RedisOutbox(a, clock=CLOCK)
            (sent,) = await outbox.read(wait_s=0.01)
            await follow(a, other)
            await promote(a)

            await outbox.trim(dict.fromkeys(range(16), sent.position))

            assert [entry.data != sent.data for entry in await outbox.read(wait_s=0.01)] == [True]
            await outbox.trim(dict.fromkeys(range(16), sent.position))
            assert list(await outbox.read(wait_s=0.01)) == []

    asyncio.run(main())


def test_the_server_names_its_run_as_the_library_does(valkey_fresh: ValkeyEngine) -> None:
    """K2 and R8 mean the same by a run."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as client:
            server = RedisCacheServer(RedisLine(client, clock=CLOCK, timeout_s=5))
            assert await server.run_id() == (await RedisRecovery(client, clock=CLOCK).standing()).run_id

    asyncio.run(main())
