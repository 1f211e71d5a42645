"""A relay that dies or stands still, on real engines: how soon another one sends, and in which order things arrive."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Container, Iterator

import pytest

from chassis.clock import SystemClock
from chassis.redis import open_redis
from contracts.cache import RELAY_LEADER
from contracts.topics import LINKS_EVENTS
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from linkmesh.local.engines import KafkaEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from tests.contract.link_cache.worlds import until
from tests.engines import create_topic, running, state_folder
from tests.integration.relay.worlds import LinkWriter, RelayProcess, records_in, versions_of

TAKEN_OVER_S = 5.0
PATIENCE_S = 30.0  # of a busy machine
KILLS = 3


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """A broker for this file, with links-events as the product has it."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        settings = {"message.timestamp.type": "LogAppendTime"}
        asyncio.run(create_topic(engine.bootstrap, LINKS_EVENTS.name, LINKS_EVENTS.partitions, settings))
        yield engine


class Scene:
    """Relay processes on one Redis, a writer beside them, and what can be asked of them."""

    def __init__(self, valkey: ValkeyEngine, broker: KafkaEngine, names: str) -> None:
        self.valkey = valkey
        self.broker = broker
        self.relays = {name: RelayProcess(valkey.url, broker.bootstrap, name) for name in names}

    @contextlib.asynccontextmanager
    async def going_on(self, prefix: str) -> AsyncIterator[LinkWriter]:
        """All relays run, and links change, for the time of the block; nothing is left afterwards."""
        stop = asyncio.Event()
        try:
            for relay in self.relays.values():
                await relay.start()
            async with open_redis(self.valkey.url, timeout_s=2) as client:
                cache = RedisLinkCache(
                    reads=client, mutations=client, clock=SystemClock(), read_timeout_s=2, mutate_timeout_s=2
                )
                writer = LinkWriter(cache, [f"{prefix}{number}" for number in range(8)])
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(writer.run(stop, pause_s=0.02))
                    try:
                        yield writer
                    finally:
                        stop.set()
        finally:
            for relay in self.relays.values():
                await relay.end(signal.SIGKILL)

    async def leader(self, among: Container[str]) -> str:
        """Who of these leads; waits until one does."""
        found = ""
        async with open_redis(self.valkey.url, timeout_s=2) as client:

            async def is_known() -> bool:
                nonlocal found
                name = await client.get(RELAY_LEADER)
                found = name.decode() if isinstance(name, bytes) else ""
                return found in among

            await until(is_known, timeout_s=PATIENCE_S)
        return found

    async def oldest_is_younger_than(self, age_s: float) -> None:
        """Waits until nothing in the outbox is older than that: somebody sends."""
        async with open_redis(self.valkey.url, timeout_s=ANSWER_TIMEOUT_S) as client:
            outbox = RedisOutbox(client, clock=SystemClock())

            async def holds() -> bool:
                return (await outbox.depth()).oldest_age_s < age_s

            await until(holds, timeout_s=PATIENCE_S)

    async def drained(self) -> None:
        """Waits until one more relay, the others being gone, has emptied the outbox."""
        last = RelayProcess(self.valkey.url, self.broker.bootstrap, "last")
        await last.start()
        try:
            await self._is_empty()
        finally:
            await last.end(signal.SIGKILL)

    async def _is_empty(self) -> None:
        async with open_redis(self.valkey.url, timeout_s=ANSWER_TIMEOUT_S) as client:
            outbox = RedisOutbox(client, clock=SystemClock())

            async def holds() -> bool:
                return (await outbox.depth()).entries == 0

            await until(holds, timeout_s=PATIENCE_S)

    async def arrivals(self, prefix: str) -> dict[str, list[int]]:
        """The versions of each link in the order of the log."""
        found = versions_of(await records_in(self.broker.bootstrap))
        return {key: versions for key, versions in found.items() if key.startswith(prefix)}


async def written(writer: LinkWriter, more: int) -> None:
    """Waits until so many more changes were acknowledged."""
    goal = writer.count + more

    async def enough() -> bool:
        return writer.count >= goal

    await until(enough, timeout_s=PATIENCE_S)


@pytest.mark.rule("O1", "P1", "P7")
def test_after_a_kill_another_relay_sends_within_five_seconds(valkey_fresh: ValkeyEngine, broker: KafkaEngine) -> None:
    """O1, P7: from kill -9 of the leader, with changes going on, until its successor has sent all that had waited when
    it began: under 5 s (the best of three: the machine may be busy). All arrives, first occurrences in order."""

    async def main() -> None:
        scene = Scene(valkey_fresh, broker, "abcd")
        alive = dict(scene.relays)
        took: list[float] = []
        async with scene.going_on("succeed-") as writer:
            for _ in range(KILLS):
                leader = await scene.leader(alive)
                await written(writer, 100)
                await scene.oldest_is_younger_than(0.5)
                killed_at = time.monotonic()
                assert await alive.pop(leader).end(signal.SIGKILL) == -signal.SIGKILL
                await scene.leader(alive)
                await scene.oldest_is_younger_than(0.5)
                took.append(time.monotonic() - killed_at)
            await written(writer, 50)
        await scene.drained()

        assert min(took) < TAKEN_OVER_S, took
        found = await scene.arrivals("succeed-")
        assert {key: list(dict.fromkeys(versions)) for key, versions in found.items()} == writer.acknowledged

    asyncio.run(main())


@pytest.mark.rule("O1", "O2", "P1", "P7")
def test_a_leader_that_stood_still_for_longer_than_its_lease_changes_no_order(
    valkey_fresh: ValkeyEngine, broker: KafkaEngine
) -> None:
    """O2: SIGSTOP of the leader in the middle of its work until another leads and has sent more; then it goes on and
    may send again what it had in hand. All arrives, and the first occurrences of each link are in order."""

    async def main() -> None:
        scene = Scene(valkey_fresh, broker, "ab")
        async with scene.going_on("pause-") as writer:
            for _ in range(2):
                leader = await scene.leader(scene.relays)
                await written(writer, 200)
                scene.relays[leader].send(signal.SIGSTOP)
                try:
                    successor = await scene.leader(scene.relays.keys() - {leader})
                    await scene.oldest_is_younger_than(0.5)
                    await written(writer, 100)
                finally:
                    scene.relays[leader].send(signal.SIGCONT)
                await written(writer, 100)
                assert successor != leader
        await scene.drained()

        found = await scene.arrivals("pause-")
        assert {key: list(dict.fromkeys(versions)) for key, versions in found.items()} == writer.acknowledged

    asyncio.run(main())
