"""The writer under a database that throttles and fails: slower, and nothing lost; and what it buries."""

import asyncio
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.dynamodb import open_dynamodb
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.partitions import partition_of
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message, Record
from chassis.redis import open_redis
from contracts.cache import decode_entry, encode_entry, url_key
from contracts.link import EventId, Link, LinkKey, LinkState
from contracts.link_codec import event_type_name
from contracts.link_rows import event_from_row, link_from_row
from contracts.tables import LINKS, META
from contracts.topics import LINKS_EVENTS, LINKS_EVENTS_DLQ
from link_service.adapters.function_library_redis import FunctionLibrary
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from linkmesh.local.probes import http_get
from linkmesh.local.storage import ensure_topics
from tests.dynamodb_proxy import Body, Detour, DynamoDBProxy, Reply, Rule, dynamodb_proxy
from tests.engines import running, state_folder
from tests.fakes.link_events import another_event, event_of, make_link, record_of
from tests.integration.writer.writers import WriterProcess, caught_up, none_left
from writer.adapters.link_table_dynamodb import DynamoDBLinkTable
from writer.adapters.persisted_redis import RedisPersistedMarker
from writer.domain import Result

SEED = 20_261_122
ENVELOPE = "com.amazonaws.dynamodb.v20120810#"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """A broker of this file's own, with the product's topics."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        asyncio.run(ensure_topics(engine.bootstrap))
        yield engine


@pytest.fixture
def proxy(dynamodb_fresh: DynamoDBEngine) -> Iterator[DynamoDBProxy]:
    """A way to a database of this test's own, which lets all pass."""
    with dynamodb_proxy(dynamodb_fresh.endpoint) as opened:
        yield opened


def some_statements(body: Body, chance: random.Random, share: float) -> Detour:
    """A share of the statements is throttled, each by itself; the others are done, and told in their places."""
    refused = {place for place in range(len(body["Statements"])) if chance.random() < share}
    kept = [statement for place, statement in enumerate(body["Statements"]) if place not in refused]
    code = chance.choice(["ThrottlingError", "ProvisionedThroughputExceeded", "InternalServerError"])

    def tell(told: Body) -> Body:
        answers = iter(told.get("Responses", []))
        error = {"Error": {"Code": code, "Message": "later"}}
        return {"Responses": [error if n in refused else next(answers) for n in range(len(body["Statements"]))]}

    return Detour({**body, "Statements": kept} if kept else None, tell)


def some_reads(body: Body, chance: random.Random, share: float) -> Detour:
    """A share of the keys is left unprocessed."""
    left: Body = {}
    asked: Body = {}
    for table, spec in body["RequestItems"].items():
        late = [chance.random() < share for _ in spec["Keys"]]
        for part, wanted in ((left, True), (asked, False)):
            keys = [key for key, is_late in zip(spec["Keys"], late, strict=True) if is_late is wanted]
            if keys:
                part[table] = {**spec, "Keys": keys}
    return Detour(
        {**body, "RequestItems": asked} if asked else None,
        lambda told: {"Responses": told.get("Responses", {}), "UnprocessedKeys": left},
    )


def storm(seed: int) -> Rule:
    """Each call of the writer's: refused as throttled, failed, done by part, or let pass."""
    chance = random.Random(seed)

    def rule(name: str, body: Body) -> Reply | Detour | None:
        luck = chance.random()
        if luck < 0.12:
            kind = chance.choice(["ProvisionedThroughputExceededException", "ThrottlingException"])
            return Reply(400, {"__type": ENVELOPE + kind, "message": "later"})
        if luck < 0.24:
            return Reply(500, {"__type": ENVELOPE + "InternalServerError", "message": "oh"})
        if luck < 0.6 and name == "BatchExecuteStatement":
            return some_statements(body, chance, 0.4)
        if luck < 0.6 and name == "BatchGetItem":
            return some_reads(body, chance, 0.4)
        return None

    return rule


def message(link: Link) -> Message:
    """A version's event on its way to the topic."""
    record = record_of(event_of(link))
    partition = partition_of(record.key, LINKS_EVENTS.partitions)
    headers = (("ce_type", event_type_name(event_of(link).type).encode()), ("ce_id", link.event_id.encode()))
    return Message(LINKS_EVENTS.name, record.key, record.value, headers, partition)


def histories(prefix: str, count: int) -> list[list[Link]]:
    """Links of three versions, the last of which deletes every other one."""
    return [
        [
            make_link(f"{prefix}-{n}", version=v, state=LinkState.DELETED if v == 3 and n % 2 else LinkState.ACTIVE)
            for v in (1, 2, 3)
        ]
        for n in range(count)
    ]


class World:
    """A writer's process, its topic, and what it leaves."""

    def __init__(self, broker: KafkaEngine, valkey: ValkeyEngine, endpoint: str, writer: WriterProcess) -> None:
        self.broker, self.valkey, self.endpoint, self.writer = broker, valkey, endpoint, writer

    async def write(self, links: Sequence[list[Link]]) -> float:
        """Sends all versions, mixed, with each link's newest value in Redis; seconds until the writer was through."""
        async with open_redis(self.valkey.url, timeout_s=5) as redis:
            for versions in links:
                await redis.set(url_key(versions[-1].key), encode_entry(versions[-1]))
        began = time.monotonic()
        async with (
            Producer(self.broker.bootstrap, client_id="t", clock=SystemClock()) as producer,
            Admin(self.broker.bootstrap, client_id="t", timeout_s=20) as admin,
        ):
            messages = [message(versions[number]) for number in range(3) for versions in links]
            assert await producer.send_in_order(messages, timeout_s=30) == len(messages)
            await caught_up(admin, timeout_s=150)
        return time.monotonic() - began

    async def letters(self) -> list[Record]:
        """The dead letters so far."""
        async with Admin(self.broker.bootstrap, client_id="t", timeout_s=20) as admin:
            partitions = await admin.partitions(LINKS_EVENTS_DLQ.name)
            return list(await admin.records_behind(dict.fromkeys(partitions, 0)))

    async def metric(self, pattern: str) -> float:
        """A sample of /metrics."""
        _, body = await http_get(self.writer.admin_port, "/metrics")
        found = re.search(rf"^{pattern} (\S+)$", body.decode(), re.MULTILINE)
        assert found is not None, f"no sample of {pattern}"
        return float(found[1])

    async def unmarked(self, links: Sequence[list[Link]]) -> list[str]:
        """The codes whose entry Redis still keeps for ever, or has not as it was."""
        async with open_redis(self.valkey.url, timeout_s=5) as redis:
            found = []
            for versions in links:
                name, newest = url_key(versions[-1].key), versions[-1]
                value = await redis.get(name)
                assert isinstance(value, bytes)
                if decode_entry(value) != newest or await redis.pttl(name) < 0:
                    found.append(newest.short_code)
            return found


def stored(endpoint: str) -> tuple[dict[LinkKey, list[Link]], dict[LinkKey, Link]]:
    """All links as the event rows tell them, oldest first, and as their projections do."""

    async def read() -> tuple[dict[LinkKey, list[Link]], dict[LinkKey, Link]]:
        events: dict[LinkKey, list[Link]] = defaultdict(list)
        projections: dict[LinkKey, Link] = {}
        async with open_dynamodb(endpoint) as client:
            async for page in client.get_paginator("scan").paginate(TableName=LINKS.name, ConsistentRead=True):
                for row in sorted(page["Items"], key=lambda row: row["sk"]["S"]):
                    if row["sk"]["S"] != META:
                        link = event_from_row(row).link
                        events[link.key].append(link)
                    elif (projected := link_from_row(row)) is not None:
                        projections[projected.key] = projected
        return events, projections

    return asyncio.run(read())


async def load_library(valkey: ValkeyEngine) -> None:
    """As link_service does."""
    async with open_redis(valkey.url, timeout_s=5) as redis:
        await FunctionLibrary(redis).load()


@pytest.mark.timeout(400)  # a process, a thousand events, and the pauses of a database that throttles
@pytest.mark.rule("W1", "W2", "W4", "C1", "P7")
def test_a_database_that_throttles_slows_and_loses_nothing(
    broker: KafkaEngine,
    valkey_fresh: ValkeyEngine,
    proxy: DynamoDBProxy,
    dynamodb_fresh: DynamoDBEngine,
    tmp_path: Path,
) -> None:
    """Every second call fails somehow: no letter, every row and every mark; and afterwards it is as quick as before."""
    writer = WriterProcess(7, kafka=broker.bootstrap, redis=valkey_fresh.url, dynamodb=proxy.endpoint, log=tmp_path)
    world = World(broker, valkey_fresh, dynamodb_fresh.endpoint, writer)
    lots = [histories(prefix, 40) for prefix in ("before", "storm", "after")]

    async def scenario() -> None:
        await load_library(valkey_fresh)
        async with none_left(writer):
            await writer.start()
            await world.write(histories("first", 1))  # it has joined, and is warm
            before = await world.write(lots[0])
            proxy.rule = storm(SEED)
            await world.write(lots[1])
            refused = Counter(proxy.calls)
            proxy.clear()
            after = await world.write(lots[2])

            assert refused["BatchExecuteStatement"] > 20
            assert await world.metric("writer_statements_repeated_total") > 20
            assert await world.letters() == []
            for links in lots:
                assert await world.unmarked(links) == []
            assert after < 4 * before + 5

    asyncio.run(scenario())
    events, projections = stored(dynamodb_fresh.endpoint)
    for versions in (versions for links in lots for versions in links):
        assert events[versions[0].key] == versions
        assert projections[versions[0].key] == versions[-1]


@pytest.mark.timeout(200)
@pytest.mark.rule("W1", "C1")
def test_a_conflict_is_buried_with_its_reason_and_counted_for_the_alarm(
    broker: KafkaEngine, valkey_fresh: ValkeyEngine, dynamodb_fresh: DynamoDBEngine, tmp_path: Path
) -> None:
    """The second event of a version becomes a letter `conflict`; the first one's rows stay; its key goes on."""
    writer = WriterProcess(
        7, kafka=broker.bootstrap, redis=valkey_fresh.url, dynamodb=dynamodb_fresh.endpoint, log=tmp_path
    )
    world = World(broker, valkey_fresh, dynamodb_fresh.endpoint, writer)
    [[one, two, three]] = histories("torn", 1)
    other = another_event(two)

    async def scenario() -> None:
        await load_library(valkey_fresh)
        async with none_left(writer):
            await writer.start()
            await world.write([[one, two, other]])
            await world.write([[one, other, three]])

            conflicts = 'dead_letters_total{group="database-writer",reason="conflict"}'
            assert await world.metric(re.escape(conflicts)) == 2
            letters = [letter for letter in await world.letters() if letter.key == b"torn-0"]
            assert [letter.header("dlq_reason") for letter in letters] == ["conflict", "conflict"]
            assert {letter.header("ce_id") for letter in letters} == {other.event_id}

    asyncio.run(scenario())
    events, projections = stored(dynamodb_fresh.endpoint)
    assert events[one.key] == [one, two, three]
    assert projections[one.key] == three


@pytest.mark.rule("W4")
def test_only_the_statements_that_were_throttled_are_sent_again(
    proxy: DynamoDBProxy, dynamodb_fresh: DynamoDBEngine
) -> None:
    """W4: of 25 statements in one call three are refused: the next call has these three and no others."""
    links = [make_link(f"some-{number}") for number in range(25)]
    again = {3, 7, 24}

    def once(name: str, body: Body) -> Detour | None:
        if proxy.calls["BatchExecuteStatement"] > 1:
            return None
        kept = [statement for place, statement in enumerate(body["Statements"]) if place not in again]
        error = {"Error": {"Code": "ThrottlingError", "Message": "later"}}

        def tell(told: Body) -> Body:
            answers = iter(told["Responses"])
            return {"Responses": [error if place in again else next(answers) for place in range(25)]}

        return Detour({**body, "Statements": kept}, tell)

    async def check() -> None:
        async with open_dynamodb(proxy.endpoint) as client:
            table = DynamoDBLinkTable(client, timeout_s=10)
            proxy.rule = once
            assert await table.insert_links(links) == [Result.STORED] * 25
            sent = [body["Statements"] for name, body in proxy.requests if name == "BatchExecuteStatement"]
            assert len(sent) == 2
            assert sent[1] == [sent[0][place] for place in sorted(again)]
            assert await table.insert_links(links) == [Result.EXISTS] * 25

    asyncio.run(check())


@pytest.mark.rule("C1", "W4")
def test_a_database_that_throttles_for_good_is_one_that_is_away(proxy: DynamoDBProxy) -> None:
    """C1: after its deadline the call gives up, without a verdict on anything."""
    proxy.rule = lambda name, body: some_statements(body, random.Random(1), 1.0)

    async def check() -> None:
        async with open_dynamodb(proxy.endpoint) as client:
            table = DynamoDBLinkTable(client, timeout_s=10, patience_s=0.5)
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await table.insert_links([make_link("never")])
            assert time.monotonic() - began < 5
            assert proxy.calls["BatchExecuteStatement"] < 10  # the pauses grow: it is not hammered

    asyncio.run(check())


@pytest.mark.rule("R4", "C1")
def test_marks_wait_for_the_library_and_for_room(valkey_fresh: ValkeyEngine) -> None:
    """R4: until link_service has loaded the library the mark is refused, which is nobody's fault; then it is set. An
    entry of another event is left as it is."""
    link = make_link("marked")
    other = replace(make_link("other"), event_id=EventId(link.event_id))

    async def check() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as redis:
            marker = RedisPersistedMarker(redis, timeout_s=5)
            await redis.set(url_key(link.key), encode_entry(link))
            await redis.set(url_key(other.key), encode_entry(make_link("other")))
            with pytest.raises(Unavailable):
                await marker.persisted([link])
            assert await redis.pttl(url_key(link.key)) == -1
            await FunctionLibrary(redis).load()

            await marker.persisted([link, other, make_link("absent")])

            assert await redis.pttl(url_key(link.key)) > 0
            assert await redis.pttl(url_key(other.key)) == -1
            assert not await redis.exists(url_key(make_link("absent").key))

    asyncio.run(check())
