"""analytics killed again and again while records of many clicks come in, some of them twice: exact in the end."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from analytics.adapters.checkpoints_dynamodb import DynamoDBCheckpoints
from analytics.adapters.click_rows_dynamodb import DynamoDBRowStore
from analytics.domain.clicks import HOUR_MS, Click, VisitorClass
from analytics.domain.ledger import Accounts
from analytics.domain.rows import RowImage
from chassis.clock import SystemClock, uuid7
from chassis.dynamodb import open_dynamodb
from chassis.dynamodb_statements import open_statements
from chassis.kafka.dead_letter_store import open_dead_letter_store
from chassis.kafka.dlq import DeadLetter, dead_letter_message
from chassis.kafka.letters import Selection
from chassis.kafka.record import Message, Record, Rejected
from contracts.link import LinkKey, UserId
from contracts.topics import click_partition
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine
from shortener.events.v1 import click_events_pb2 as events_pb
from tests.engines import MakeTopic, create_topic
from tests.fakes.analytics_clicks import CLICKS, TOTALS, batch_of, click
from tests.integration.analytics.deployment import PARTITIONS, Analytics, deployed, send

KILLS = 6
ROUNDS = 8
ALICE = UserId("alice")


@dataclass
class Gateway:
    """Plays the shipper of a gateway: a spool for each partition, resends with other boundaries, totals at the end."""

    topic: str
    keys: Sequence[LinkKey]
    chance: Random = field(default_factory=lambda: Random(5))
    spools: Sequence[str] = field(default_factory=lambda: [uuid7(SystemClock().now()) for _ in range(PARTITIONS)])
    recorded: list[list[Click]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])

    def records(self, clicks: int) -> list[Message]:
        """So many new clicks, with some that were sent before."""
        fresh: list[list[Click]] = [[] for _ in range(PARTITIONS)]
        for _ in range(clicks):
            key = self.chance.choice(self.keys)
            fresh[click_partition(key, PARTITIONS)].append(self._click(key))
        found: list[Message] = []
        for partition, new in enumerate(fresh):
            old = self.recorded[partition]
            again = min(len(old), self.chance.choice((0, 0, 1, 30)))
            sent = [*old[len(old) - again :], *new]
            first = len(old) - again + 1
            while sent:
                size = self.chance.randint(1, 40)
                found.append(self._message(partition, CLICKS, batch_of(sent[:size], self.spools[partition], first)))
                sent, first = sent[size:], first + size
            old += new
        return found

    def totals(self) -> list[Message]:
        """The spools' own books, closed."""
        return [
            self._message(
                partition,
                TOTALS,
                events_pb.SpoolTotals(
                    spool_id=self.spools[partition], partition=partition, recorded=len(clicks), dropped=3, closed=True
                ),
            )
            for partition, clicks in enumerate(self.recorded)
        ]

    def _click(self, key: LinkKey) -> Click:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        kind = self.chance.choice((*[VisitorClass.HUMAN] * 8, VisitorClass.BOT, VisitorClass.PREFETCH))
        return click(key, at_ms=now_ms, visitor=str(self.chance.randrange(50)), visitor_class=kind, user=ALICE)

    def _message(self, partition: int, kind: str, event: events_pb.LinksAccessed | events_pb.SpoolTotals) -> Message:
        spool_id = self.spools[partition].encode()
        return Message(self.topic, spool_id, event.SerializeToString(), (("ce_type", kind.encode()),), partition)


@dataclass
class Tables:
    """What analytics has stored."""

    rows: DynamoDBRowStore
    checkpoints: DynamoDBCheckpoints

    async def accounts(self) -> list[Accounts]:
        """Of each partition."""
        found = await self.checkpoints.load(range(PARTITIONS))
        return [found[partition].accounts for partition in range(PARTITIONS)]

    async def of_link(self, key: LinkKey) -> list[RowImage]:
        """The rows of a link around now."""
        hour = int(datetime.now(UTC).timestamp() * 1000) // HOUR_MS
        return list(await self.rows.read(key, range(hour - 2, hour + 2)))

    async def top_links(self) -> Counter[str]:
        """Alice's clicks by link, of yesterday and today."""
        day = int(datetime.now(UTC).timestamp()) // 86_400
        found: Counter[str] = Counter()
        for row in await self.rows.read_tops(ALICE, range(day - 1, day + 1)):
            found.update(row.links)
        return found


@asynccontextmanager
async def tables(endpoint: str) -> AsyncIterator[Tables]:
    """The tables, by the product's own adapters."""
    async with (
        open_dynamodb(endpoint) as client,
        open_statements(client, endpoint, timeout_s=5) as statements,
    ):
        yield Tables(DynamoDBRowStore(client, statements, timeout_s=5), DynamoDBCheckpoints(client, timeout_s=5))


@pytest.mark.rule("P4", "A2", "A4", "A10", "S4", "S8")
def test_every_click_is_counted_once_whatever_is_killed(
    kafka: KafkaEngine, kafka_topics: MakeTopic, dynamodb_fresh: DynamoDBEngine, tmp_path: Path
) -> None:
    """Killed -9 six times amid folds and flushes: rows of links and accounts, labels and the accounts of the spools
    agree in the end with what was recorded, click for click.
    """
    topic = kafka_topics("exact", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    keys = [LinkKey(f"exact-{number}") for number in range(40)]
    gateway = Gateway(topic, keys)

    async def scenario() -> None:
        async with deployed(kafka.bootstrap, dynamodb_fresh.endpoint, topic, tmp_path) as deployment:
            process = Analytics(deployment, FLUSH_INTERVAL_S="0.2")
            try:
                await process.start()
                for number in range(ROUNDS):
                    records = gateway.records(1500)
                    await send(kafka.bootstrap, records[: len(records) // 2])
                    if number < KILLS:
                        process.kill()  # somewhere in a fold, a flush, or between rows and checkpoint
                    await send(kafka.bootstrap, records[len(records) // 2 :])
                    if number < KILLS:
                        await process.start()
                await send(kafka.bootstrap, gateway.totals())
                await _until_balanced(dynamodb_fresh.endpoint, gateway, process)
                assert process.stop() == 0
            finally:
                process.kill()
        await _compare(dynamodb_fresh.endpoint, gateway)

    asyncio.run(scenario())


@pytest.mark.rule("A9", "A10")
def test_a_dead_letter_is_replayed(
    kafka: KafkaEngine, kafka_topics: MakeTopic, dynamodb_fresh: DynamoDBEngine, tmp_path: Path
) -> None:
    """A record in the middle of a spool is in the dead letters: the operator's tool replays it, and it fills its gap;
    what was counted stays, and the tool sends no letter twice.
    """
    topic = kafka_topics("replayed", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    asyncio.run(create_topic(kafka.bootstrap, f"{topic}-dlq", PARTITIONS, {"message.timestamp.type": "LogAppendTime"}))
    key = LinkKey("replayed")
    partition = click_partition(key, PARTITIONS)
    spool_id = uuid7(SystemClock().now())
    now_ms = int(datetime.now(UTC).timestamp() * 1000)

    def batch(first: int, clicks: int, kind: str = CLICKS) -> Message:
        value = batch_of([click(key, at_ms=now_ms, user=ALICE)] * clicks, spool_id, first).SerializeToString()
        return Message(topic, spool_id.encode(), value, (("ce_type", kind.encode()),), partition)

    async def scenario() -> None:
        async with deployed(kafka.bootstrap, dynamodb_fresh.endpoint, topic, tmp_path) as deployment:
            deployment.add_link(key)
            process = Analytics(deployment, FLUSH_INTERVAL_S="0.2")
            try:
                await process.start()
                # What was not understood when it came, and is now.
                await send(kafka.bootstrap, [batch(1, 3), batch(4, 5, kind="of.a.newer.Gateway"), batch(9, 2)])
                assert (await process.until_counted(key, 5)).clicks.total == 5
                assert await process.metric("clicks_missing_total") == 5
                lost = batch(4, 5)
                record = Record(topic, partition, 1, now_ms, lost.key, lost.value, lost.headers)
                letter = DeadLetter(record, Rejected("undecodable"), 1, now_ms)
                await send(kafka.bootstrap, [dead_letter_message(letter, f"{topic}-group")])
                async with open_dead_letter_store(kafka.bootstrap, [topic], clock=SystemClock()) as store:
                    sent = [(await store.replay(Selection(), lambda _count: None)).sent for _ in range(2)]
                assert sent == [1, 0]
                assert (await process.until_counted(key, 10)).clicks.total == 10
                assert process.stop() == 0
            finally:
                process.kill()
        async with tables(dynamodb_fresh.endpoint) as stored:
            accounts = (await stored.checkpoints.load([partition]))[partition].accounts
            spool = accounts.spools[spool_id]
            assert (spool.last, spool.counted, spool.missing, spool.gaps) == (10, 10, (), 0)
            assert await stored.top_links() == {key: 10}

    asyncio.run(scenario())


async def _until_balanced(endpoint: str, gateway: Gateway, process: Analytics) -> None:
    """Returns once the stored accounts say that all is counted; what they say stays checked after that."""
    async with tables(endpoint) as stored:
        async with asyncio.timeout(60):
            while True:
                try:
                    accounts = await stored.accounts()
                except KeyError:  # a partition without a checkpoint yet
                    accounts = []
                spools = [one.spools.get(spool_id) for one, spool_id in zip(accounts, gateway.spools, strict=False)]
                if len(spools) == PARTITIONS and all(spool is not None and spool.closed for spool in spools):
                    return
                assert process.log is not None
                await asyncio.sleep(0.1)


async def _compare(endpoint: str, gateway: Gateway) -> None:
    clicks = list(itertools.chain(*gateway.recorded))
    async with tables(endpoint) as stored:
        for partition, accounts in enumerate(await stored.accounts()):
            spool = accounts.spools[gateway.spools[partition]]
            recorded = len(gateway.recorded[partition])
            assert (spool.last, spool.counted, spool.recorded, spool.dropped) == (recorded, recorded, recorded, 3)
            assert spool.balanced
            assert (spool.gaps, spool.missing) == (0, ())
        wanted = Counter((one.key, one.visitor_class) for one in clicks)
        found: Counter[tuple[LinkKey, VisitorClass]] = Counter()
        for key in gateway.keys:
            for row in await stored.of_link(key):
                found[key, VisitorClass.HUMAN] += row.human
                found[key, VisitorClass.BOT] += row.bot
                found[key, VisitorClass.PREFETCH] += row.prefetches
                assert row.labels.get("c", 0) == row.human
        assert +found == wanted
        tops = Counter(one.key for one in clicks if one.visitor_class is not VisitorClass.PREFETCH)
        assert await stored.top_links() == tops
