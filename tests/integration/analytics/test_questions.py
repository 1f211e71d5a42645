"""Groups, zones, top links, live clicks and reconciliation, asked of two real instances on real engines."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chassis.auth import GATEWAY, Principal, principal_to_message
from chassis.clock import uuid7
from chassis.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from chassis.grpc_client import open_channel
from chassis.kafka.codec import event_headers
from chassis.kafka.record import Message
from contracts.link import LinkKey
from contracts.scopes import OPERATE, STATS_READ
from contracts.topics import click_partition
from linkmesh.local.engines.dynamodb import DynamoDBEngine
from linkmesh.local.engines.kafka import KafkaEngine
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from shortener.events.v1 import click_events_pb2 as events_pb
from tests.engines import MakeTopic
from tests.fakes.gateway_peers import ALICE, make_link
from tests.integration.analytics.deployment import PARTITIONS, Analytics, Deployment, deployed, send

if TYPE_CHECKING:
    from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceAsyncStub

Scenario = Callable[[Deployment, Analytics, Analytics], Coroutine[None, None, None]]
OPERATOR = Principal("operator", frozenset({OPERATE}))
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def run(
    kafka: KafkaEngine, kafka_topics: MakeTopic, dynamodb_fresh: DynamoDBEngine, tmp_path: Path
) -> Callable[[Scenario], None]:
    """Runs a scenario with two instances that share the partitions of a topic of their own."""
    topic = kafka_topics("clicks", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})

    async def scenario(body: Scenario) -> None:
        async with deployed(kafka.bootstrap, dynamodb_fresh.endpoint, topic, tmp_path) as deployment:
            first, second = (Analytics(deployment, number, FLUSH_INTERVAL_S="60") for number in "01")
            try:
                await first.start()
                await second.start()
                await body(deployment, first, second)
            finally:
                first.kill()
                second.kill()

    return lambda body: asyncio.run(scenario(body))


@contextlib.asynccontextmanager
async def asking(deployment: Deployment, process: Analytics) -> AsyncIterator["AnalyticsServiceAsyncStub"]:
    """The service of one instance, as the gateway asks it."""
    async with open_channel(
        f"127.0.0.1:{process.grpc_port}", peer="analytics", process=GATEWAY, mesh_secret=deployment.secret.encode()
    ) as channel:
        yield AnalyticsServiceStub(channel)


class Spool:
    """A gateway's spool of one partition."""

    def __init__(self, deployment: Deployment, partition: int) -> None:
        self.id = uuid7(datetime.now(UTC))
        self.partition = partition
        self._topic = deployment.topic
        self._next = 1

    def clicks(self, *keys: LinkKey, skipped: int = 0, country: str = "DE") -> Message:
        """A record of clicks on these links; `skipped` were recorded before them and never arrive."""
        first = self._next + skipped
        self._next = first + len(keys)
        clicks = []
        for key in keys:
            click = events_pb.LinkAccessed(
                link_key=key,
                user_id=ALICE.user_id,
                visitor=secrets.token_bytes(8),
                user_agent=FIREFOX,
                referrer="https://www.News.example/today",
                country=country,
                visitor_class=events_pb.VISITOR_CLASS_HUMAN,
            )
            click.at.GetCurrentTime()
            clicks.append(click)
        return self._message(events_pb.LinksAccessed(spool_id=self.id, first_sequence=first, clicks=clicks))

    def totals(self, *, dropped: int = 0) -> Message:
        """What its own books say."""
        return self._message(
            events_pb.SpoolTotals(
                spool_id=self.id, partition=self.partition, recorded=self._next - 1, dropped=dropped, closed=True
            )
        )

    def _message(self, event: events_pb.LinksAccessed | events_pb.SpoolTotals) -> Message:
        headers = event_headers(
            event_id=secrets.token_hex(8),
            event_type=event.DESCRIPTOR.full_name,
            source="test",
            time=datetime.now(UTC),
            subject=self.id,
            traceparent=None,
        )
        return Message(self._topic, self.id.encode(), event.SerializeToString(), headers, self.partition)


def one_link_a_partition(deployment: Deployment) -> list[LinkKey]:
    """Links of Alice's, one in each partition, by partition."""
    found: dict[int, LinkKey] = {}
    number = 0
    while len(found) < PARTITIONS:
        key = LinkKey(f"link-{number}")
        number += 1
        if click_partition(key, PARTITIONS) not in found:
            found[click_partition(key, PARTITIONS)] = deployment.add_link(key)
    return [found[partition] for partition in range(PARTITIONS)]


@pytest.mark.rule("A7")
def test_whoever_is_asked_gives_the_same_answer(run: Callable[[Scenario], None]) -> None:
    """Groups, days of a zone and an account's top links are the same from both instances, from memory, and again from
    what the table and one survivor have; a question that makes no sense is told so.
    """

    async def body(deployment: Deployment, first: Analytics, second: Analytics) -> None:
        keys = one_link_a_partition(deployment)
        spools = [Spool(deployment, partition) for partition in range(PARTITIONS)]
        records = [spools[n].clicks(*[key] * (10 * n + 3), country="AT") for n, key in enumerate(keys)]
        records += [spools[n].clicks(key) for n, key in enumerate(keys)]
        await send(deployment.kafka, records)
        for process in (first, second):
            for n, key in enumerate(keys):
                await process.until_counted(key, 10 * n + 4)

        async def check() -> None:
            for process in (first, second):
                if not process.running:
                    continue
                for n, key in enumerate(keys):
                    stats = await process.stats(key, group_by=pb.GROUP_BY_COUNTRY, time_zone="Europe/Berlin")
                    assert {group.value: group.clicks for group in stats.groups} == {"AT": 10 * n + 3, "DE": 1}
                    assert [point.start.seconds % 3600 for point in stats.series] == [0]
                    assert stats.counted_until.seconds > 0
                for dimension, value in ((pb.GROUP_BY_BROWSER, "Firefox"), (pb.GROUP_BY_OS, "Linux"),
                                         (pb.GROUP_BY_REFERRER, "news.example")):  # fmt: skip
                    stats = await process.stats(keys[1], group_by=dimension)
                    assert [(group.value, group.clicks) for group in stats.groups] == [(value, 14)]
                await check_top(process)

        async def check_top(process: Analytics) -> None:
            async with asking(deployment, process) as analytics:
                request = pb.ListTopLinksRequest(principal=principal_to_message(ALICE), page_size=3)
                page = await analytics.ListTopLinks(request, timeout=5)
                assert [(link.short_code, link.clicks) for link in page.links] == [
                    (keys[n], 10 * n + 4) for n in (3, 2, 1)
                ]
                assert page.counted_until.seconds > 0
                request.page_token = page.next_page_token
                rest = await analytics.ListTopLinks(request, timeout=5)
                assert [(link.short_code, link.clicks) for link in rest.links] == [(keys[0], 4)]
                assert not rest.next_page_token
                request.principal.user_id, request.page_token = "bob", ""
                assert not (await analytics.ListTopLinks(request, timeout=5)).links

        await check()
        for fields in ({"time_zone": "Asia/Kolkata"}, {"time_zone": "../etc/passwd"}, {"group_by": 99}):
            with pytest.raises(InvalidArgument):
                await first.stats(keys[0], **fields)
        hours = await first.stats(keys[0], time_zone="Asia/Kolkata", granularity=pb.GRANULARITY_HOUR)
        assert hours.clicks.total == 4

        assert second.stop() == 0  # its rows are in the table now, its partitions go to the first
        for n, key in enumerate(keys):
            await first.until_counted(key, 10 * n + 4)
        await check()

    run(body)


@pytest.mark.rule("A10", "S4")
def test_reconciliation_tells_what_is_missing(run: Callable[[Scenario], None]) -> None:
    """Of every spool and partition, asked of either instance: all counted, or how many are missing; a repeat is one;
    only an operator may ask.
    """

    async def body(deployment: Deployment, first: Analytics, second: Analytics) -> None:
        keys = one_link_a_partition(deployment)
        spools = [Spool(deployment, partition) for partition in range(PARTITIONS)]
        again = spools[0].clicks(keys[0], keys[0])
        records = [again, again, *(spools[n].clicks(keys[n]) for n in (1, 2, 3))]
        records += [spools[1].clicks(keys[1], keys[1], skipped=4)]
        records += [spool.totals(dropped=n) for n, spool in enumerate(spools)]
        await send(deployment.kafka, records)
        expected = {
            (spools[0].id, 0): (2, 2, 2, 2, 0, 0),
            (spools[1].id, 1): (7, 7, 3, 0, 4, 1),
            (spools[2].id, 2): (1, 1, 1, 0, 0, 2),
            (spools[3].id, 3): (1, 1, 1, 0, 0, 3),
        }

        async def read(process: Analytics) -> dict[tuple[str, int], tuple[int, ...]]:
            found: dict[tuple[str, int], tuple[int, ...]] = {}
            token = ""
            async with asking(deployment, process) as analytics:
                while True:
                    request = pb.ReconcileClicksRequest(
                        principal=principal_to_message(OPERATOR), page_size=3, page_token=token
                    )
                    page = await analytics.ReconcileClicks(request, timeout=5)
                    for it in page.spools:
                        numbers = (it.recorded, it.shipped, it.counted, it.repeats, it.missing, it.dropped)
                        found[it.spool_id, it.partition] = numbers
                    token = page.next_page_token
                    if not token:
                        return found

        for process in (first, second):
            deadline = time.monotonic() + 30
            while (told := await read(process)) != expected:
                assert time.monotonic() < deadline, told
                await asyncio.sleep(0.1)
        async with asking(deployment, first) as analytics:
            with pytest.raises(PermissionDenied):
                await analytics.ReconcileClicks(
                    pb.ReconcileClicksRequest(principal=principal_to_message(ALICE)), timeout=5
                )
        first.kill()  # nobody owns its partitions for a moment, then the second does; nothing was flushed
        deadline = time.monotonic() + 60
        while await read(second) != expected:
            assert time.monotonic() < deadline, second.log
            await asyncio.sleep(0.1)

    run(body)


def test_live_clicks_come_from_the_owner(run: Callable[[Scenario], None]) -> None:
    """Of links on every partition, asked of either instance, each click is told once, within a second; when the owner
    is killed the stream goes on, and says that it was interrupted; only the link's owner may watch.
    """

    async def body(deployment: Deployment, first: Analytics, second: Analytics) -> None:
        keys = one_link_a_partition(deployment)
        spools = [Spool(deployment, partition) for partition in range(PARTITIONS)]
        async with asking(deployment, first) as one, asking(deployment, second) as other:
            for n, key in enumerate(keys):
                calls = [stub.WatchClicks(watch(key), timeout=60) for stub in (one, other)]
                streams = [aiter(call) for call in calls]
                for stream in streams:
                    assert not (await anext(stream)).clicks
                await send(deployment.kafka, [spools[n].clicks(key, key, keys[n - 1])])
                for stream in streams:
                    clicks = await until_clicks(stream, 2)
                    assert [(it.visitor_class, it.country, it.browser, it.os) for it in clicks] == [
                        ("human", "DE", "Firefox", "Linux")
                    ] * 2
                    assert clicks[0].referrer == "news.example"
                for call in calls:
                    call.cancel()
            await until_metric(first, 'click_watchers{side="asked"}', 0)
            await until_metric(second, 'click_watchers{side="owned"}', 0)
            deployment.links.links["theirs"] = make_link("theirs", user_id="bob")
            for code in ("theirs", "nobodys"):
                with pytest.raises(NotFound):
                    await anext(aiter(one.WatchClicks(watch(LinkKey(code)), timeout=5)))

            begun = [(key, aiter(one.WatchClicks(watch(key), timeout=120))) for key in keys]
            for _, stream in begun:
                await anext(stream)
            second.kill()
            interrupted = 0
            for n, (key, stream) in enumerate(begun):
                async with asyncio.TaskGroup() as tasks:  # what is counted before the watch has found it is not told
                    clicking = tasks.create_task(keep_clicking(deployment.kafka, spools[n], key))
                    told = await until_told(stream, lambda it: bool(it.clicks))
                    clicking.cancel()
                interrupted += any(each.interrupted for each in told)
            assert 0 < interrupted < PARTITIONS  # those that the second owned

            await first_ends(first, begun[0][1])

    run(body)


def watch(key: LinkKey) -> pb.WatchClicksRequest:
    """Alice's question."""
    principal = Principal(ALICE.user_id, frozenset({STATS_READ}))
    return pb.WatchClicksRequest(principal=principal_to_message(principal), short_code=key)


async def keep_clicking(kafka: str, spool: Spool, key: LinkKey) -> None:
    """A click now and then."""
    while True:
        await send(kafka, [spool.clicks(key)])
        await asyncio.sleep(0.5)


async def until_told(
    stream: AsyncIterator[pb.WatchClicksResponse], enough: Callable[[pb.WatchClicksResponse], bool]
) -> list[pb.WatchClicksResponse]:
    """What was told until it is enough; fails after a while."""
    found: list[pb.WatchClicksResponse] = []
    async with asyncio.timeout(60):
        async for told in stream:
            found.append(told)
            if enough(told):
                break
    return found


async def until_clicks(stream: AsyncIterator[pb.WatchClicksResponse], count: int) -> list[pb.LiveClick]:
    """The next clicks, exactly so many."""
    clicks: list[pb.LiveClick] = []
    async with asyncio.timeout(30):
        while len(clicks) < count:
            clicks += (await anext(stream)).clicks
    assert len(clicks) == count
    return clicks


async def until_metric(process: Analytics, name: str, value: float) -> None:
    """Returns once a gauge has this value."""
    deadline = time.monotonic() + 20
    while (found := await process.metric(name)) != value:
        assert time.monotonic() < deadline, (name, found)
        await asyncio.sleep(0.05)


async def first_ends(process: Analytics, stream: AsyncIterator[pb.WatchClicksResponse]) -> None:
    """A stream ends with the process it was asked of, which stops in order and soon."""
    ending = asyncio.create_task(asyncio.to_thread(process.stop))
    with pytest.raises(Unavailable):
        await until_told(stream, lambda _it: False)
    assert await ending == 0
