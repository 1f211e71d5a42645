"""The relay between a real Redis and a real broker, while one or the other, or the relay itself, is killed."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chassis.clock import SystemClock
from chassis.redis import open_redis
from contracts.cache import RELAY_LEADER
from contracts.topics import LINKS_EVENTS
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from linkmesh.local.engines import KafkaEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from tests.contract.link_cache.worlds import mutation_of, new_link, until
from tests.engines import create_topic, running, state_folder
from tests.integration.relay.worlds import LinkWriter, RelayProcess, records_in, running_relay, versions_of

CODES = [f"key-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """A broker for this file, with links-events as the product has it."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        settings = {"message.timestamp.type": "LogAppendTime"}
        asyncio.run(create_topic(engine.bootstrap, LINKS_EVENTS.name, LINKS_EVENTS.partitions, settings))
        yield engine


@asynccontextmanager
async def writing(valkey: ValkeyEngine, prefix: str, *, pause_s: float = 0.005) -> AsyncIterator[LinkWriter]:
    """Writers at work for the time of the block, under codes that no other test has."""
    async with open_redis(valkey.url, timeout_s=2) as client:
        cache = RedisLinkCache(
            reads=client, mutations=client, clock=SystemClock(), read_timeout_s=2, mutate_timeout_s=2
        )
        writer, stop = LinkWriter(cache, [prefix + code for code in CODES]), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run(stop, pause_s=pause_s))
            try:
                yield writer
            finally:
                stop.set()


async def written(writer: LinkWriter, count: int) -> None:
    async def enough() -> bool:
        return writer.count >= count

    await until(enough, timeout_s=30)


async def drained(valkey: ValkeyEngine, *, timeout_s: float = 30) -> None:
    async with open_redis(valkey.url, timeout_s=ANSWER_TIMEOUT_S) as client:
        outbox = RedisOutbox(client, clock=SystemClock())

        async def is_empty() -> bool:
            return (await outbox.depth()).entries == 0

        await until(is_empty, timeout_s=timeout_s)


async def arrivals(broker: KafkaEngine, prefix: str) -> dict[str, list[int]]:
    found = versions_of(await records_in(broker.bootstrap))
    return {key: versions for key, versions in found.items() if key.startswith(prefix)}


def first(versions: dict[str, list[int]]) -> dict[str, list[int]]:
    return {key: list(dict.fromkeys(found)) for key, found in versions.items()}


@pytest.mark.rule("O1", "P1")
def test_each_link_has_its_events_once_and_in_order(valkey_fresh: ValkeyEngine, broker: KafkaEngine) -> None:
    """O1: with nothing going wrong the topic holds each acknowledged event exactly once, in order per link."""

    async def main() -> None:
        async with running_relay(valkey_fresh.url, broker.bootstrap):
            async with writing(valkey_fresh, "plain-") as writer:
                await written(writer, 1500)
            await drained(valkey_fresh)
        assert await arrivals(broker, "plain-") == writer.acknowledged

    asyncio.run(main())


@pytest.mark.rule("O1", "P1")
def test_an_event_is_in_kafka_within_a_moment_and_in_its_trace(valkey_fresh: ValkeyEngine, broker: KafkaEngine) -> None:
    """The relay is woken by the write, and the record carries the mutation's trace."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    async def main() -> None:
        async with (
            running_relay(valkey_fresh.url, broker.bootstrap),
            open_redis(valkey_fresh.url, timeout_s=2) as client,
        ):
            cache = RedisLinkCache(reads=client, mutations=client, clock=SystemClock(), mutate_timeout_s=2)
            waited: list[float] = []
            for number in range(30):
                link = new_link(f"trace-{number}")
                mutation = replace(mutation_of(link, generated=True), traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
                await cache.mutate(mutation)
                started = time.perf_counter()
                await drained(valkey_fresh)
                waited.append(time.perf_counter() - started)
            records = [r for r in await records_in(broker.bootstrap) if r.key.startswith(b"trace-")]

            assert len(records) == 30
            assert all((record.header("traceparent") or "").split("-")[1] == trace_id for record in records)
            assert sorted(waited)[15] < 0.25  # far below the 0.5 s that a read may wait: it was woken

    asyncio.run(main())


@pytest.mark.rule("O1", "O2", "P1", "P7")
def test_a_leader_that_is_killed_loses_nothing_and_is_succeeded(
    valkey_fresh: ValkeyEngine, broker: KafkaEngine
) -> None:
    """P1, P7: SIGKILL of the leading process in the middle of its work: another one takes over within the lease, every
    acknowledged event arrives, and first occurrences are in order."""

    async def main() -> None:
        relays = {name: RelayProcess(valkey_fresh.url, broker.bootstrap, name) for name in ("a", "b", "c")}
        every = list(relays.values())
        try:
            for relay in relays.values():
                await relay.start()
            await leader_of(valkey_fresh, relays, timeout_s=60)  # three processes start, on a busy machine
            async with writing(valkey_fresh, "kill-") as writer:
                for _ in range(2):
                    leader = await leader_of(valkey_fresh, relays)
                    await written(writer, writer.count + 500)
                    assert await relays.pop(leader).end(signal.SIGKILL) == -signal.SIGKILL
                await leader_of(valkey_fresh, relays)
                await written(writer, writer.count + 500)
            await drained(valkey_fresh)
            codes = [await relay.end(signal.SIGTERM) for relay in relays.values()]
        finally:
            for relay in every:
                await relay.end(signal.SIGKILL)  # a test that fails leaves no process behind

        assert codes == [0]
        found = await arrivals(broker, "kill-")
        assert first(found) == writer.acknowledged

    asyncio.run(main())


async def leader_of(valkey: ValkeyEngine, among: Container[str], *, timeout_s: float = 6) -> str:
    """Who of these leads; waits until one does, which may take a killed leader's lease."""
    leaders: list[str] = []

    async with open_redis(valkey.url, timeout_s=2) as client:

        async def is_known() -> bool:
            name = await client.get(RELAY_LEADER)
            leaders.append(name.decode() if isinstance(name, bytes) else "")
            return leaders[-1] in among

        await until(is_known, timeout_s=timeout_s)
    return leaders[-1]


@pytest.mark.rule("O1", "P1", "P7")
def test_a_broker_that_is_killed_loses_nothing_and_writes_go_on(
    valkey_fresh: ValkeyEngine, broker: KafkaEngine
) -> None:
    """P1: kill -9 of the broker: mutations are acknowledged all the while, and everything arrives after its return."""

    async def main() -> None:
        async with running_relay(valkey_fresh.url, broker.bootstrap):
            async with writing(valkey_fresh, "broker-", pause_s=0.02) as writer:
                await written(writer, 300)
                broker.kill()
                before = writer.count
                await written(writer, before + 500)
                await broker.start()
                await written(writer, writer.count + 100)
            await drained(valkey_fresh)
        assert first(await arrivals(broker, "broker-")) == writer.acknowledged

    asyncio.run(main())


@pytest.mark.rule("O1", "R6", "P1", "P7")
def test_a_redis_that_is_killed_loses_no_event(valkey_fresh: ValkeyEngine, broker: KafkaEngine) -> None:
    """P1: kill -9 of Redis between write and relay: each acknowledged event is in the topic afterwards, in order; what
    was written without an acknowledgement may be there, too."""

    async def main() -> None:
        async with running_relay(valkey_fresh.url, broker.bootstrap):
            async with writing(valkey_fresh, "redis-") as writer:
                await written(writer, 500)
                valkey_fresh.kill()
            await valkey_fresh.start()
            await drained(valkey_fresh)
        found = first(await arrivals(broker, "redis-"))
        for key, versions in writer.acknowledged.items():
            assert found[key][: len(versions)] == versions
            assert found[key] == sorted(found[key])

    asyncio.run(main())
