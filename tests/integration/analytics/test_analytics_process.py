"""analytics as a process, on a real broker and a real database."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from analytics.domain.clicks import VisitorClass
from chassis.auth import principal_to_message
from chassis.errors import InvalidArgument, NotFound, PermissionDenied
from chassis.grpc_client import open_channel
from chassis.kafka.admin import Admin
from chassis.kafka.record import TopicPartition
from contracts.link_codec import timestamp
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from tests.engines import MakeTopic, create_topic
from tests.fakes.gateway_peers import ALICE, KEY, make_link
from tests.integration.analytics.deployment import PARTITIONS, Analytics, Deployment, deployed, message, recreate, send

Scenario = Callable[[Deployment], Coroutine[None, None, None]]


@pytest.fixture
def run(
    kafka: KafkaEngine, kafka_topics: MakeTopic, dynamodb_fresh: DynamoDBEngine, tmp_path: Path
) -> Callable[[Scenario], None]:
    """Runs a scenario with a topic and a table of its own."""
    topic = kafka_topics("clicks", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})

    async def scenario(body: Scenario) -> None:
        async with deployed(kafka.bootstrap, dynamodb_fresh.endpoint, topic, tmp_path) as deployment:
            await body(deployment)

    return lambda body: asyncio.run(scenario(body))


@pytest.mark.rule("P4", "A1", "A2", "A3", "A4")
def test_counts_survive_kill_9(run: Callable[[Scenario], None]) -> None:
    """Killed three times, with rows flushed and rows not, every click is counted once in the end."""

    async def body(deployment: Deployment) -> None:
        keys = [deployment.add_link(f"kill-{number}") for number in range(8)]
        process = Analytics(deployment, FLUSH_INTERVAL_S="0.3")
        try:
            await process.start()
            for part in range(3):
                clicks = [
                    message(deployment.topic, keys[number % 8], visitor=f"v{number % 40}") for number in range(400)
                ]
                await send(deployment.kafka, clicks)
                if part < 2:
                    await process.until_counted(keys[0], 50 * part + 10)
                    process.kill()
                    await process.start()
            for key in keys:
                stats = await process.until_counted(key, 150)
                assert (stats.clicks.total, stats.clicks.human, stats.unique_visitors) == (150, 150, 5)
            process.kill()  # what a flush has not stored is folded again
            await process.start()
            for key in keys:
                assert (await process.until_counted(key, 150)).clicks.total == 150
            assert process.stop() == 0
        finally:
            process.kill()

    run(body)


@pytest.mark.rule("A6", "A7")
def test_stats_are_of_now_and_of_the_table(run: Callable[[Scenario], None]) -> None:
    """A click is seen long before its row is flushed; after a restart the table tells the old and memory the new."""

    async def body(deployment: Deployment) -> None:
        key = deployment.add_link("both")
        process = Analytics(deployment, FLUSH_INTERVAL_S="60")
        try:
            await process.start()
            await send(deployment.kafka, [message(deployment.topic, key, visitor="one")])
            sent = time.monotonic()
            await process.until_counted(key, 1)
            assert time.monotonic() - sent < 2  # and no flush is due
            assert await process.metric("analytics_rows_written_total") == 0
            assert process.stop() == 0  # flushes what is in memory

            await process.start()
            assert (await process.stats(key)).clicks.total == 1
            more = [("one", VisitorClass.HUMAN), ("two", VisitorClass.HUMAN), ("", VisitorClass.BOT)]
            more += [("three", VisitorClass.PREFETCH)]
            before = datetime.now(UTC)
            await send(
                deployment.kafka,
                [message(deployment.topic, key, visitor=who, visitor_class=what) for who, what in more],
            )
            stats = await process.until_counted(key, 4)
            assert (stats.clicks.total, stats.clicks.human, stats.clicks.bot) == (4, 3, 1)
            assert (stats.prefetches, stats.unique_visitors) == (1, 2)
            assert [(point.clicks, point.unique_visitors) for point in stats.series] == [(4, 2)]
            assert stats.counted_until.ToDatetime(tzinfo=UTC) > before - timedelta(seconds=1)
        finally:
            process.kill()

    run(body)


@pytest.mark.rule("A7")
def test_any_instance_answers(run: Callable[[Scenario], None]) -> None:
    """Of two instances each answers for links whose partition the other owns, from its memory; killed, the other
    takes over and nothing is counted twice.
    """

    async def body(deployment: Deployment) -> None:
        keys = [deployment.add_link(f"any-{number}") for number in range(6)]
        first, second = Analytics(deployment, "0"), Analytics(deployment, "1")
        try:
            await first.start()
            await second.start()
            clicks = [message(deployment.topic, keys[number % 6], visitor=f"v{number}") for number in range(60)]
            await send(deployment.kafka, clicks)
            for key in keys:
                for process in (first, second):
                    assert (await process.until_counted(key, 10)).clicks.total == 10
            for process in (first, second):
                assert await process.metric('analytics_queries_total{memory="other"}') > 0

            first.kill()
            for key in keys:
                assert (await second.until_counted(key, 10)).clicks.total == 10
        finally:
            first.kill()
            second.kill()

    run(body)


@pytest.mark.rule("C1", "A6")
def test_a_database_that_hangs_pauses_the_counting(
    run: Callable[[Scenario], None], dynamodb_fresh: DynamoDBEngine
) -> None:
    """While the database hangs nothing is lost and nothing given up; after it all clicks are there."""

    async def body(deployment: Deployment) -> None:
        key, other = deployment.add_link("hang"), deployment.add_link("hang-2")
        process = Analytics(deployment, DYNAMODB_TIMEOUT_S="0.5", FLUSH_INTERVAL_S="0.5")
        try:
            await process.start()
            await send(deployment.kafka, [message(deployment.topic, key, visitor="one")])
            await process.until_counted(key, 1)
            dynamodb_fresh.pause()
            await send(deployment.kafka, [message(deployment.topic, key, visitor=f"v{n}") for n in range(20)])
            await send(deployment.kafka, [message(deployment.topic, other, visitor=f"v{n}") for n in range(20)])
            deadline = time.monotonic() + 20
            while not await process.metric("analytics_flush_failures_total"):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            dynamodb_fresh.resume()

            assert (await process.until_counted(key, 21)).clicks.total == 21
            assert (await process.until_counted(other, 20)).clicks.total == 20
        finally:
            process.kill()

    run(body)


@pytest.mark.rule("C1")
def test_garbage_is_buried_and_stops_nothing(run: Callable[[Scenario], None], kafka: KafkaEngine) -> None:
    """A record that is no click lies in the dead letters with where and why; the clicks behind it are counted."""

    async def body(deployment: Deployment) -> None:
        key = deployment.add_link("garbage")
        dead_letters = f"{deployment.topic}-dlq"
        await create_topic(kafka.bootstrap, dead_letters, 1, {"message.timestamp.type": "LogAppendTime"})
        good = message(deployment.topic, key, visitor="one")
        process = Analytics(deployment)
        try:
            await process.start()
            await send(deployment.kafka, [good, good._replace(value=b"\xff"), good])
            assert (await process.until_counted(key, 2)).clicks.total == 2
        finally:
            process.kill()
        async with Admin(kafka.bootstrap, client_id="test") as admin:
            letter = await admin.record_at(TopicPartition(dead_letters, 0), 0)
        assert letter is not None
        assert (letter.key, letter.value, letter.header("dlq_offset")) == (key.encode(), b"\xff", "1")
        assert letter.header("dlq_reason") == "undecodable"

    run(body)


@pytest.mark.rule("A8")
def test_a_topic_created_anew_goes_on_counting(run: Callable[[Scenario], None], kafka: KafkaEngine) -> None:
    """Clicks of a topic that was deleted and created again are added, though their offsets are old news; both to a
    process that was running and to one that was not.
    """

    async def body(deployment: Deployment) -> None:
        key = deployment.add_link("anew")
        process = Analytics(deployment, FLUSH_INTERVAL_S="0.5")
        try:
            await process.start()
            await send(deployment.kafka, [message(deployment.topic, key, visitor=f"a{n}") for n in range(30)])
            await process.until_counted(key, 30)
            await recreate(kafka.bootstrap, deployment.topic)
            await send(deployment.kafka, [message(deployment.topic, key, visitor=f"b{n}") for n in range(10)])
            await process.until_counted(key, 40, timeout_s=60)
            assert process.stop() == 0

            await recreate(kafka.bootstrap, deployment.topic)
            await send(deployment.kafka, [message(deployment.topic, key, visitor=f"c{n}") for n in range(20)])
            await process.start()
            stats = await process.until_counted(key, 60)
            assert (stats.clicks.total, stats.unique_visitors) == (60, 60)
        finally:
            process.kill()

    run(body)


def test_questions_are_checked(run: Callable[[Scenario], None]) -> None:
    """Only an owner sees stats, only processes see memory, and a range is a range."""

    async def body(deployment: Deployment) -> None:
        deployment.add_link("mine")
        deployment.links.links["theirs"] = make_link("theirs", user_id="bob")
        now = datetime.now(UTC)
        process = Analytics(deployment)
        try:
            await process.start()
            assert (await process.stats("mine")).clicks.total == 0
            for code in ("theirs", "nobodys", "no/code"):
                with pytest.raises(NotFound, match="link_not_found"):
                    await process.stats(code)
            with pytest.raises(InvalidArgument) as told:
                await process.stats("mine", **{"from": timestamp(now - timedelta(days=93)), "until": timestamp(now)})
            assert [violation.field for violation in told.value.fields] == ["from"]
            with pytest.raises(InvalidArgument):
                await process.stats("mine", **{"from": timestamp(now), "until": timestamp(now)})
            await _ask_as_a_stranger(process, deployment)
        finally:
            process.kill()

    run(body)


async def _ask_as_a_stranger(process: Analytics, deployment: Deployment) -> None:
    """With an API key a caller that is none of ours sees its own stats, but no memory."""
    async with open_channel(
        f"127.0.0.1:{process.grpc_port}", peer="analytics", process="webhook", mesh_secret=deployment.secret.encode()
    ) as channel:
        stub = AnalyticsServiceStub(channel)
        assert not (await stub.ReadOwnedRows(pb.ReadOwnedRowsRequest(partition=99), timeout=5)).owned
        with pytest.raises(PermissionDenied):
            await stub.GetClickStats(  # only the gateway may say for whom it asks
                pb.GetClickStatsRequest(principal=principal_to_message(ALICE), short_code="mine"), timeout=5
            )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.grpc_port}") as plain:
        stub = AnalyticsServiceStub(plain)
        bearer = (("authorization", f"Bearer {KEY}"),)
        stats = await stub.GetClickStats(pb.GetClickStatsRequest(short_code="mine"), timeout=5, metadata=bearer)
        assert stats.short_code == "mine"
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
            await stub.ReadOwnedRows(pb.ReadOwnedRowsRequest(), timeout=5, metadata=bearer)
