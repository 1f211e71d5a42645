"""Two writers share the partitions, a third comes and goes in every way there is, while links are made and changed."""

import asyncio
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.dynamodb import open_dynamodb
from chassis.kafka.admin import Admin
from chassis.kafka.partitions import partition_of
from chassis.redis import open_redis
from contracts.cache import url_key
from contracts.link import LinkKey
from contracts.link_rows import event_from_row, link_from_row, row_key
from contracts.tables import LINKS, link_pk
from contracts.topics import LINKS_EVENTS, LINKS_EVENTS_DLQ
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from linkmesh.local.storage import ensure_topics
from tests.contract.link_cache.worlds import until
from tests.engines import running, state_folder
from tests.integration.relay.worlds import LinkWriter, records_in, running_relay
from tests.integration.writer.watched_table import Insert, Witness, watched
from tests.integration.writer.writers import WriterProcess, caught_up, none_left, shared_by

CODES = [f"shared-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """A broker of this file's own, with the product's topics."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        asyncio.run(ensure_topics(engine.bootstrap))
        yield engine


@dataclass
class World:
    """The engines, three writers with a witness, and an administrator's view of their group."""

    admin: Admin
    writers: list[WriterProcess]
    links: LinkWriter
    witness: Witness = field(default_factory=Witness)

    async def handled_by(self, name: str, *, of: Mapping[int, str] | None = None, since: float = 0.0) -> Insert:
        """The first row that this writer puts from now on; `of`: of a partition that it has."""

        def first() -> Insert | None:
            for insert in self.witness.inserts:
                partition = partition_of(insert.key.encode(), LINKS_EVENTS.partitions)
                if insert.writer == name and insert.at > since and (of is None or of[partition] == name):
                    return insert
            return None

        async def there() -> bool:
            return first() is not None

        await until(there, timeout_s=60)
        found = first()
        assert found is not None
        return found


@asynccontextmanager
async def opened(
    broker: KafkaEngine, valkey: ValkeyEngine, dynamodb: DynamoDBEngine, folder: Path
) -> AsyncIterator[World]:
    """A world in which links change all the time, and a relay sends what they tell."""
    witness, stop = Witness(), asyncio.Event()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_redis(valkey.url, timeout_s=5))
        cache = RedisLinkCache(
            reads=client, mutations=client, clock=SystemClock(), read_timeout_s=5, mutate_timeout_s=5
        )
        writers = [
            WriterProcess(
                seat,
                kafka=broker.bootstrap,
                redis=valkey.url,
                dynamodb=await stack.enter_async_context(watched(dynamodb.endpoint, f"writer-{seat}", witness)),
                log=folder,
            )
            for seat in range(3)
        ]
        await stack.enter_async_context(none_left(*writers))
        await stack.enter_async_context(running_relay(valkey.url, broker.bootstrap))
        admin = await stack.enter_async_context(Admin(broker.bootstrap, client_id="witness"))
        links = LinkWriter(cache, CODES)
        async with asyncio.TaskGroup() as tasks:
            changing = tasks.create_task(links.run(stop, pause_s=0.6))
            try:
                yield World(admin, writers, links, witness)
            finally:
                stop.set()
            await changing
            await drained(valkey)
            await caught_up(admin)


async def drained(valkey: ValkeyEngine) -> None:
    """Wait until everything that was acknowledged is in Kafka."""
    async with open_redis(valkey.url, timeout_s=ANSWER_TIMEOUT_S) as client:
        outbox = RedisOutbox(client, clock=SystemClock())

        async def is_empty() -> bool:
            return (await outbox.depth()).entries == 0

        await until(is_empty, timeout_s=60)


@pytest.mark.timeout(400)  # thirty seconds of its own, and ten starts of a process on a machine that others use
@pytest.mark.rule("C3", "W1", "W2", "R4", "P1", "P7")
def test_writers_come_and_go_under_a_flow_of_changes(
    broker: KafkaEngine, valkey_fresh: ValkeyEngine, dynamodb_fresh: DynamoDBEngine, tmp_path: Path
) -> None:
    """A third writer joins, is killed, takes its seat back, is stopped for longer than its session and goes on, leaves
    and comes every few seconds: each event has its row, one each and in order of first handling; the projection is the
    newest; Redis was told; and the others have taken over within seconds.
    """

    async def scenario() -> None:
        async with opened(broker, valkey_fresh, dynamodb_fresh, tmp_path) as world:
            await turbulence(world)
        await check_rows(world, dynamodb_fresh)
        await check_redis(world, valkey_fresh)
        check_order(world)
        async with Admin(broker.bootstrap, client_id="t") as admin:
            letters = await admin.end_offsets(await admin.partitions(LINKS_EVENTS_DLQ.name))
        assert sum(letters.values()) == 0
        assert len(await records_in(broker.bootstrap)) >= world.links.count

    asyncio.run(scenario())


async def turbulence(world: World) -> None:
    """Everything that happens to the third writer, with changes in flight all the while."""
    one, two, three = world.writers
    admin, began = world.admin, world.links.count
    await one.start()
    await two.started()
    await shared_by(admin, one, two)
    await three.started()
    shares = await shared_by(admin, one, two, three)
    assert set(Counter(shares.values()).values()) <= {3, 4}, "ten partitions among three"
    await world.handled_by("writer-2", of=shares)

    killed_at = time.monotonic()
    assert await three.end(signal.SIGKILL) == -signal.SIGKILL
    orphans = {number for number, owner in shares.items() if owner == "writer-2"}
    taken_over = await first_of(world, orphans, since=killed_at, by={"writer-0", "writer-1"})
    assert taken_over.at - killed_at < 15, "3 s of session, a rebalance, and a machine four times slower"

    await three.started()
    await shared_by(admin, one, two, three)
    two.send(signal.SIGSTOP)
    await shared_by(admin, one, three)  # its session is over: the others have all
    await world.handled_by("writer-2", since=time.monotonic())
    two.send(signal.SIGCONT)
    resumed_at = time.monotonic()
    await shared_by(admin, one, two, three)
    await world.handled_by("writer-1", since=resumed_at)

    for _ in range(3):
        assert await three.end(signal.SIGTERM) == 0, "it drains and ends in order"
        await three.started()  # mostly before its session is over, then it takes its seat back
        await shared_by(admin, one, two, three)
    assert world.links.count - began > 300, "nothing was in flight, so nothing was proven"


async def first_of(world: World, partitions: set[int], *, since: float, by: set[str]) -> Insert:
    """The first new row of an event of one of these partitions."""
    found: list[Insert] = []

    async def there() -> bool:
        found.extend(
            insert
            for insert in world.witness.inserts
            if insert.at > since
            and insert.stored
            and insert.writer in by
            and partition_of(insert.key.encode(), LINKS_EVENTS.partitions) in partitions
        )
        return bool(found)

    await until(there, timeout_s=60)
    return found[0]


async def check_rows(world: World, dynamodb: DynamoDBEngine) -> None:
    """Of each link the rows 1, 2, 3 … of the acknowledged versions, and no other; the projection at the newest."""
    async with open_dynamodb(dynamodb.endpoint, timeout_s=10) as client:
        for code in CODES:
            answer = await client.query(
                TableName=LINKS.name,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :e)",
                ExpressionAttributeValues={":pk": {"S": link_pk(LinkKey(code))}, ":e": {"S": "E#"}},
                ConsistentRead=True,
            )
            assert "LastEvaluatedKey" not in answer, "a page holds all of a link's rows here"
            events = [event_from_row(row) for row in answer["Items"]]
            acknowledged = world.links.acknowledged[code]
            assert [event.version for event in events] == acknowledged == list(range(1, len(acknowledged) + 1))
            item = await client.get_item(TableName=LINKS.name, Key=row_key(LinkKey(code)), ConsistentRead=True)
            newest = link_from_row(item["Item"])
            assert newest is not None
            assert (newest.version, newest.event_id) == (events[-1].version, events[-1].event_id)


async def check_redis(world: World, valkey: ValkeyEngine) -> None:
    """Redis was told of each newest version: nothing stays without an expiry [R4]."""
    async with open_redis(valkey.url, timeout_s=5) as client:
        left = [code for code in CODES if await client.pttl(url_key(LinkKey(code))) <= 0]
    assert left == []


def check_order(world: World) -> None:
    """No event was stored twice, and each link's events were first handled in their order, whoever handled them."""
    stored = Counter((insert.key, insert.version) for insert in world.witness.inserts if insert.stored)
    assert max(stored.values()) == 1
    tried: dict[str, list[int]] = defaultdict(list)
    for insert in world.witness.inserts:
        tried[insert.key].append(insert.version)
    for code in CODES:
        first = list(dict.fromkeys(tried[code]))
        assert first == world.links.acknowledged[code], f"{code} was first handled out of order"
    assert {insert.writer for insert in world.witness.inserts} == {"writer-0", "writer-1", "writer-2"}
