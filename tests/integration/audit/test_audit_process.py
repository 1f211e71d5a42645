"""`python -m audit` on a real broker and a real database: what it records, what it answers, and what a kill leaves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.errors import InvalidArgument, NotFound, PermissionDenied
from chassis.kafka.admin import Admin
from chassis.kafka.record import Message, TopicPartition
from contracts.link import LinkEvent, LinkState
from contracts.topics import LINKS_EVENTS
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine
from linkmesh.local.storage import ensure_topics
from tests.fakes.link_events import event_of, make_link
from tests.integration.audit.deployment import AuditProcess, Deployment, message_of, send

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def deployment(kafka_fresh: KafkaEngine, dynamodb_fresh: DynamoDBEngine, tmp_path: Path) -> Deployment:
    """Engines with topics and tables, and nothing in them."""
    asyncio.run(ensure_topics(kafka_fresh.bootstrap, [LINKS_EVENTS]))
    return Deployment(kafka_fresh.bootstrap, dynamodb_fresh.endpoint, tmp_path)


@pytest.fixture
def processes(deployment: Deployment) -> Iterator[list[AuditProcess]]:
    """Two processes, not started; what runs at the end of the test is stopped."""
    made = [AuditProcess(deployment), AuditProcess(deployment)]
    yield made
    for process in made:
        process.end()


def history(code: str, user_id: str = "ada") -> list[LinkEvent]:
    """A link that is created, changed and deleted."""
    states = {3: LinkState.DELETED}
    return [
        event_of(make_link(code, version=version, user_id=user_id, state=states.get(version, LinkState.ACTIVE)))
        for version in (1, 2, 3)
    ]


@pytest.mark.rule("B1", "B3", "O2")
def test_entries_are_recorded_and_shown_to_their_owner(deployment: Deployment, processes: list[AuditProcess]) -> None:
    """Each record is one leaf of a log that proves itself; its owner finds it by code and account, nobody else does."""
    audit = processes[0]
    events = history("aaa-1") + history("bbb-2") + history("ccc-3", "bob")
    repeats = events[:2]  # a relay that had been paused sends again
    junk = Message(LINKS_EVENTS.name, b"junk", b"\xff\xff", ())

    async def check() -> None:
        audit.start()
        await audit.until_ready()
        await send(deployment.kafka, [message_of(event) for event in [*events, *repeats]] + [junk])
        await deployment.until_recorded(len(events) + len(repeats) + 1)
        async with audit.client() as client:
            for size in (0, 1, 2):
                of_code = await client.entries("ada", "aaa-1", size=size)
                assert [entry.version for entry in of_code] == [1, 2, 3]
                assert [entry.leaf.event_id for entry in of_code] == [event.event_id for event in events[:3]]
                of_account = await client.entries("ada", size=size)
                assert {(entry.short_code, entry.version) for entry in of_account} == {
                    (code, version) for code in ("aaa-1", "bbb-2") for version in (1, 2, 3)
                }
                assert len(of_account) == 6
            assert await client.entries("bob", "aaa-1") == []
            assert await client.entries("nobody") == []
            first = of_code[0].leaf
            checkpoint = await client.checkpoint(first.partition)
            log = deployment.verified(first.partition)
            assert log is not None
            assert (
                checkpoint.checkpoint.encode()
                == (deployment.logs / f"{LINKS_EVENTS.name}/{first.partition}/checkpoint").read_bytes()
            )
            assert checkpoint.size == log.checkpoint.size
            assert log.entries[of_code[0].leaf_index] == first.SerializeToString(deterministic=True)

    asyncio.run(check())

    leaves = deployment.leaves()
    assert sum(len(log) for log in leaves.values()) == len(events) + len(repeats) + 1
    assert all([leaf.offset for leaf in log] == list(range(len(log))) for log in leaves.values())


@pytest.mark.rule("B1")
def test_bad_requests_are_refused(deployment: Deployment, processes: list[AuditProcess]) -> None:
    """Without the scope, with a foreign page token, or for a log that is not there, the answer is a clear error."""
    audit = processes[0]

    async def check() -> None:
        audit.start()
        await audit.until_ready()
        async with audit.client() as client:
            with pytest.raises(PermissionDenied):
                await client.page("ada", scopes=frozenset({"links:read"}))
            with pytest.raises(InvalidArgument) as refused:
                await client.page("ada", token="bm9uc2Vuc2U")
            assert [field.field for field in refused.value.fields] == ["page_token"]
            for partition in (0, 10, -1):
                with pytest.raises(NotFound) as missing:
                    await client.checkpoint(partition)
                assert missing.value.reason == "log_not_found"

    asyncio.run(check())


@pytest.mark.rule("B1", "B2", "B3", "P1")
def test_kill_9_leaves_exactly_one_leaf_for_each_record(deployment: Deployment, processes: list[AuditProcess]) -> None:
    """Killed again and again while records come in, the logs end with one leaf per record, in order, one tree each."""
    audit = AuditProcess(deployment, AUDIT_BATCH_RECORDS_MAX="40")  # many small batches: more places to be killed at
    processes.append(audit)
    total, kills = 1_800, 6
    events = [event_of(make_link(f"link-{number}", user_id=f"user-{number % 37}")) for number in range(total)]

    async def check() -> None:
        for kill in range(kills):
            batch = events[kill * total // kills : (kill + 1) * total // kills]
            await send(deployment.kafka, [message_of(event) for event in batch])
            before = deployment.recorded()
            audit.start()
            await deployment.until_recorded(before + 1)
            await asyncio.sleep(0.02 * kill)  # another place each time; what is asserted does not depend on it
            audit.kill()
        audit.start()
        await deployment.until_recorded(total)
        async with Admin(deployment.kafka, client_id="tests") as admin:
            places = [TopicPartition(LINKS_EVENTS.name, number) for number in range(LINKS_EVENTS.partitions)]
            ends = await admin.end_offsets(places)
        found = {
            place.partition: [leaf.offset for leaf in log]
            for place in places
            if (log := deployment.leaves().get(place.partition)) is not None
        }
        assert found == {place.partition: list(range(end)) for place, end in ends.items() if end}
        await audit.until_ready()
        async with audit.client() as client:
            for user in ("user-0", "user-36"):
                mine = [event.link.short_code for event in events if event.user_id == user]
                assert sorted(entry.short_code for entry in await client.entries(user, size=100)) == sorted(mine)

    asyncio.run(check())

    assert {leaf.event_id for log in deployment.leaves().values() for leaf in log} == {e.event_id for e in events}


@pytest.mark.rule("B2")
def test_second_process_waits_for_the_first(deployment: Deployment, processes: list[AuditProcess]) -> None:
    """Two processes on one directory never both write: the second waits, says why, and goes on when the first dies."""
    first, second = processes
    events = [event_of(make_link(f"link-{number}")) for number in range(200)]

    async def check() -> None:
        first.start()
        await first.until_ready()
        second.start()
        deadline = asyncio.get_running_loop().time() + 30
        while (
            "audit-log" not in (await second.readiness())[1]
            or "Another" not in (await second.readiness())[1]["audit-log"]
        ):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        await send(deployment.kafka, [message_of(event) for event in events[:100]])
        await deployment.until_recorded(100)
        first.kill()
        await second.until_ready()
        await send(deployment.kafka, [message_of(event) for event in events[100:]])
        await deployment.until_recorded(200)

    asyncio.run(check())

    assert sum(len(log) for log in deployment.leaves().values()) == 200


@pytest.mark.rule("B1", "C1", "P7")
def test_database_away_is_waited_for(
    deployment: Deployment, processes: list[AuditProcess], dynamodb_fresh: DynamoDBEngine
) -> None:
    """While the database is away nothing is signed and nothing is lost; when it is back, every record has its leaf."""
    audit = processes[0]
    events = [event_of(make_link(f"link-{number}")) for number in range(300)]

    async def check() -> None:
        audit.start()
        await audit.until_ready()
        await send(deployment.kafka, [message_of(event) for event in events[:100]])
        await deployment.until_recorded(100)
        dynamodb_fresh.kill()
        await send(deployment.kafka, [message_of(event) for event in events[100:]])
        deadline = asyncio.get_running_loop().time() + 30
        while (await audit.readiness())[0]:
            assert asyncio.get_running_loop().time() < deadline, "it never said that it waits"
            await asyncio.sleep(0.05)
        assert deployment.recorded() == 100
        await dynamodb_fresh.start()
        await deployment.until_recorded(300)
        await audit.until_ready()
        async with audit.client() as client:
            assert len(await client.entries("ada", size=100)) == 300
        assert audit.stop() == 0

    asyncio.run(check())

    assert sum(len(log) for log in deployment.leaves().values()) == 300
