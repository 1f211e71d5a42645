"""The links in a real Redis that hangs, dies, forgets the library, holds rubbish, or is not durable."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.health import Readiness
from chassis.redis import Redis, open_redis
from contracts.cache import LIBRARY, lease_key, reply_of, url_key
from contracts.link import Link
from contracts.outbox_entries import decode_outbox_entry
from contracts.restoring import restore_call, standing_call
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import RedisOutbox
from link_service.loops.cache_guard import CacheGuard
from link_service.ports import Done, Leased, Present, Verdict
from linkmesh.local.engines import ValkeyEngine
from tests.contract.link_cache.worlds import mutation_of, new_link, next_of, until

READ_S, MUTATE_S = 0.05, 0.5
SLACK_S = 0.2  # a busy machine


@contextlib.asynccontextmanager
async def cache_on(engine: ValkeyEngine) -> AsyncIterator[tuple[RedisLinkCache, Redis]]:
    """The adapter with its own deadlines, and a client of the test."""
    async with (
        open_redis(engine.url, timeout_s=READ_S) as reads,
        open_redis(engine.url, timeout_s=MUTATE_S) as mutations,
        open_redis(engine.url, timeout_s=5) as client,
    ):
        yield RedisLinkCache(reads=reads, mutations=mutations, clock=SystemClock()), client


async def created(cache: RedisLinkCache) -> Link:
    link = new_link()
    assert await cache.mutate(mutation_of(link, generated=True)) == Done(link)
    return link


@pytest.mark.rule("R7", "P5")
def test_a_hung_redis_is_waited_for_once_and_a_mutation_says_that_its_outcome_is_unknown(
    valkey_fresh: ValkeyEngine,
) -> None:
    """R7: the first read gives up after 50 ms, the first mutation after 500 ms, all others at once; a mutation that was
    sent says so, one that was not says that too; both work again a second after Redis does."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, _):
            known = await created(cache)
            assert await cache.get(known.key) == known
            first, second = new_link(), new_link()
            valkey_fresh.pause()
            try:
                read_s = await refused(cache.get(known.key), "unavailable")
                again_s = await refused(cache.lease(new_link().key), "unavailable")
                mutate_s = await refused(cache.mutate(mutation_of(first, generated=True)), "outcome_unknown")
                not_sent_s = await refused(cache.mutate(mutation_of(second, generated=True)), "unavailable")
            finally:
                valkey_fresh.resume()

            assert READ_S * 0.9 <= read_s < READ_S + SLACK_S
            assert MUTATE_S * 0.9 <= mutate_s < MUTATE_S + SLACK_S
            assert again_s < READ_S * 0.8
            assert not_sent_s < READ_S * 0.8
            await until(lambda: answers(cache, known))
            await until(lambda: can_create(cache), timeout_s=3)
            assert await cache.get(second.key) is None

    asyncio.run(main())


async def refused(call: object, reason: str) -> float:
    """How long a call took to be refused for this reason."""
    assert asyncio.iscoroutine(call)
    started = time.perf_counter()
    with pytest.raises(Unavailable) as caught:
        await call
    assert caught.value.reason == reason
    return time.perf_counter() - started


async def answers(cache: RedisLinkCache, link: Link) -> bool:
    try:
        return await cache.get(link.key) == link
    except Unavailable:
        return False


async def can_create(cache: RedisLinkCache) -> bool:
    try:
        return isinstance(await cache.mutate(mutation_of(new_link(), generated=True)), Done)
    except Unavailable:
        return False


@pytest.mark.rule("R7", "R1", "P1")
def test_a_redis_killed_in_the_middle_of_batches_leaves_each_mutation_its_own_truth(
    valkey_fresh: ValkeyEngine,
) -> None:
    """Whatever was told as done is there after the restart, with exactly one event; what was told as never sent is not;
    the rest is told as unknown. No event is there twice."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            await created(cache)
            told: list[tuple[Link, Verdict | Unavailable]] = []

            async def create_until_it_dies() -> None:
                while not told or not isinstance(told[-1][1], Unavailable):
                    batch = [new_link() for _ in range(50)]
                    verdicts = await cache.mutate_all([mutation_of(link, generated=True) for link in batch])
                    told.extend(zip(batch, verdicts, strict=True))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(8):
                    tasks.create_task(create_until_it_dies())
                await until(lambda: some_are_told(told))
                valkey_fresh.kill()
            await valkey_fresh.start()

            stored = await all_events(RedisOutbox(client, clock=SystemClock()))
            reasons = {verdict.reason for _, verdict in told if isinstance(verdict, Unavailable)}
            done = {link.event_id for link, verdict in told if verdict == Done(link)}
            unsent = {
                link.event_id
                for link, verdict in told
                if isinstance(verdict, Unavailable) and verdict.reason == "unavailable"
            }
            assert "outcome_unknown" in reasons
            assert len(done) + sum(isinstance(verdict, Unavailable) for _, verdict in told) == len(told)
            assert done <= stored
            assert not unsent & stored

    asyncio.run(main())


async def some_are_told(told: Sequence[object]) -> bool:
    return len(told) >= 500


@pytest.mark.rule("R7")
def test_a_redis_that_is_not_there_refuses_at_once_and_nothing_was_sent(valkey_fresh: ValkeyEngine) -> None:
    """A refused connection proves that the mutation was never sent: the caller may say so, and may try again."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, _):
            valkey_fresh.kill()
            assert await refused(cache.mutate(mutation_of(new_link(), generated=True)), "unavailable") < 0.3

    asyncio.run(main())


@pytest.mark.rule("R6", "P1")
def test_kill_9_under_load_loses_nothing_that_was_acknowledged(valkey_fresh: ValkeyEngine) -> None:
    """P1: every link whose mutation was answered has its value and its event after Redis was killed and restarted."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            acknowledged: list[Link] = []

            async def create_until_it_dies() -> None:
                with contextlib.suppress(Unavailable):
                    while True:
                        acknowledged.append(await created(cache))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(16):
                    tasks.create_task(create_until_it_dies())
                await until(lambda: enough(acknowledged))
                valkey_fresh.kill()
            await valkey_fresh.start()

            stored = await all_events(RedisOutbox(client, clock=SystemClock()))
            assert {link.event_id for link in acknowledged} <= stored
            await until(lambda: answers(cache, acknowledged[0]))
            for link in acknowledged:
                assert await client.exists(url_key(link.key))
                assert await client.pttl(url_key(link.key)) == -1

    asyncio.run(main())


async def enough(acknowledged: list[Link]) -> bool:
    return len(acknowledged) >= 500


async def all_events(outbox: RedisOutbox) -> set[str]:
    """What waits in the outbox, which must have nothing twice."""
    found: set[str] = set()
    while entries := await outbox.read(wait_s=0.01):
        ids = [decode_outbox_entry(entry.data).event_id for entry in entries]
        assert len({*ids} | found) == len(ids) + len(found), "an event is there twice"
        found |= {*ids}
        await outbox.trim({entry.bucket: entry.position for entry in entries})
    return found


@pytest.mark.rule("R1")
def test_a_redis_without_the_library_gets_it_with_the_first_call(valkey_fresh: ValkeyEngine) -> None:
    """A Redis that was emptied or replaced answers "Function not found": link_service loads the library and goes on."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            await created(cache)
            await client.function_flush()

            assert isinstance(await cache.lease(new_link().key), Leased)
            await client.function_flush()
            await created(cache)
            await client.function_flush()
            many = [new_link() for _ in range(3)]
            verdicts = await cache.mutate_all([mutation_of(link, generated=True) for link in many])
            assert verdicts == [Done(link) for link in many]

    asyncio.run(main())


@pytest.mark.rule("R1")
def test_an_answer_that_nobody_expects_is_that_mutations_unknown_outcome(valkey_fresh: ValkeyEngine) -> None:
    """In a pipeline, a word that is no verdict and an error in the library end one mutation, not its neighbours."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            body = f"""#!lua name={LIBRARY}
                redis.register_function('{LIBRARY}_mutate', function(keys)
                    if string.find(keys[1], 'word') then return {{'NONSENSE'}} end
                    if string.find(keys[1], 'error') then return redis.error_reply('ERR broken') end
                    return {{'APPLIED'}} end)"""
            await client.function_load(body, replace=True)
            links = [new_link(code) for code in ("fine-1", "word-1", "fine-2", "error-1", "fine-3")]

            verdicts = await cache.mutate_all([mutation_of(link, generated=True) for link in links])

            assert [verdicts[place] for place in (0, 2, 4)] == [Done(links[place]) for place in (0, 2, 4)]
            odd = [verdicts[1], verdicts[3]]
            assert [item.reason for item in odd if isinstance(item, Unavailable)] == ["outcome_unknown"] * 2

    asyncio.run(main())


@pytest.mark.rule("R5", "P2")
@pytest.mark.parametrize("rubbish", [b"", b"short", b"\0" * 40])
def test_a_value_that_is_none_is_a_miss_that_heals(valkey_fresh: ValkeyEngine, rubbish: bytes) -> None:
    """What is no value at all counts as absent, for readers and for the library: a fill writes over it."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            link = new_link()
            await client.set(url_key(link.key), rubbish)
            assert await cache.get(link.key) is None

            lease = await cache.lease(link.key)
            assert isinstance(lease, Leased)
            assert await cache.fill(lease.token, link) == link

            assert await cache.get(link.key) == link

    asyncio.run(main())


@pytest.mark.rule("R5")
def test_a_key_of_another_type_is_a_miss(valkey_fresh: ValkeyEngine) -> None:
    """Somebody's list under our key is neither a crash nor an answer."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            link = new_link()
            await client.lpush(url_key(link.key), "x")

            assert await cache.get(link.key) is None
            assert isinstance(await cache.lease(link.key), Leased)

    asyncio.run(main())


@pytest.mark.rule("R5", "P2")
def test_an_entry_whose_link_cannot_be_read_is_neither_present_nor_absent(valkey_fresh: ValkeyEngine) -> None:
    """A valid header with an unreadable link (a newer format) must not be taken for absent: the table may be behind it.
    It is also not written over: another process can read it."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            link = await created(cache)
            value = await client.get(url_key(link.key))
            assert isinstance(value, bytes)
            newer = b"\2" + value[1:26] + b"of another time"
            await client.set(url_key(link.key), newer)

            assert await cache.get(link.key) is None
            await refused(cache.lease(link.key), "unavailable")

            assert await client.get(url_key(link.key)) == newer
            following = next_of(link)
            assert await cache.mutate(mutation_of(following)) == Done(following)
            assert await cache.lease(link.key) == Present(following)

    asyncio.run(main())


@pytest.mark.rule("R8")
def test_restore_puts_back_what_is_absent_or_older_and_nothing_else(valkey_fresh: ValkeyEngine) -> None:
    """The library's part of the recovery after a failover: stored without expiry if absent or older, and the lease of a
    reader of the table ends with it."""

    async def main() -> None:
        async with cache_on(valkey_fresh) as (cache, client):
            await FunctionLibrary(client).load()
            first = new_link()
            second, third = next_of(first), next_of(next_of(first))
            assert isinstance(await cache.lease(first.key), Leased)

            run_id = reply_of(await client.fcall(*standing_call().arguments))[1].decode()  # type: ignore[arg-type]  # as below

            words = [reply_of(await restore(client, link, run_id))[0] for link in (second, first, second, third)]

            assert words == ["STORED", "NOTHING", "NOTHING", "STORED"]
            assert await cache.get(first.key) == third
            assert await client.pttl(url_key(first.key)) == -1
            assert not await client.exists(lease_key(first.key))

    asyncio.run(main())


async def restore(client: Redis, link: Link, run_id: str) -> object:
    return await client.fcall(*restore_call(link, run_id).arguments)  # type: ignore[arg-type]  # its stubs know str only


@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    ("setting", "value"),
    [("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no"), ("maxmemory", "0")],
)
def test_a_redis_that_is_not_durable_makes_the_process_unready(
    valkey_fresh: ValkeyEngine, setting: str, value: str
) -> None:
    """R6: appendfsync always, noeviction, an append-only file at all, a limit; the reason names what is needed."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as client:
            await client.config_set(setting, value)
            readiness = Readiness()
            guard = CacheGuard(fitness=FunctionLibrary(client), set_ready=readiness.declare("redis"))
            stop = asyncio.Event()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(guard.run(stop))
                await until(lambda: says(readiness, setting))
                stop.set()

            assert not readiness.ready

    asyncio.run(main())


async def says(readiness: Readiness, words: str) -> bool:
    return words in readiness.reasons.get("redis", "")


@pytest.mark.rule("R6")
def test_a_fit_redis_makes_the_process_ready_with_the_library_loaded_once(valkey_fresh: ValkeyEngine) -> None:
    """R6: the condition is met, the library is there; loading again changes nothing, and another text under its name
    is refused, since old processes may be running on it."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as client:
            readiness, stop = Readiness(), asyncio.Event()
            guard = CacheGuard(fitness=FunctionLibrary(client), set_ready=readiness.declare("redis"))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(guard.run(stop))
                await until(lambda: is_ready(readiness))
                stop.set()
            library = FunctionLibrary(client)
            await library.load()
            assert await library.problem() is None
            older = "#!lua name=linkmesh_v2\nredis.register_function('linkmesh_v2_mutate', function() return 1 end)"
            await client.function_load(older)  # that of processes which have not ended yet
            assert await library.problem() is None

            await client.function_load(
                "#!lua name=linkmesh_v3\nredis.register_function('linkmesh_v3_mutate', function() return 1 end)",
                replace=True,
            )

            problem = await library.problem()
            assert problem is not None
            assert "linkmesh_v3" in problem

    asyncio.run(main())


async def is_ready(readiness: Readiness) -> bool:
    return readiness.ready
