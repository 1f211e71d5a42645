"""What writer's LinkTable promises, on the fake and on a real DynamoDB engine."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

import pytest

from chassis.dynamodb import open_dynamodb
from contracts.link import Link
from contracts.link_codec import encode_event
from contracts.link_rows import Reservation, event_from_row, link_from_row, reservation_to_row, row_key
from contracts.tables import LINKS, event_sk
from linkmesh.local.engines import DynamoDBEngine
from tests.fakes.link_events import another_event, event_of, make_link
from tests.fakes.writer_link_table import FakeLinkTable
from writer.adapters.link_table_dynamodb import DynamoDBLinkTable
from writer.domain import Result
from writer.ports import LinkTable, StoredEvent

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Subject:
    """A table under test, with a way to reserve a code and to look at what is stored."""

    table: LinkTable
    reserve: Callable[[Link], Awaitable[None]]
    stored: Callable[[Link], Awaitable[Link | None]]


Check = Callable[[Subject], Coroutine[None, None, None]]


@pytest.fixture(params=["fake", "dynamodb"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check against one kind of table."""
    if request.param == "fake":
        return lambda check: asyncio.run(check(_fake()))
    engine: DynamoDBEngine = request.getfixturevalue("dynamodb")
    return lambda check: asyncio.run(_on_dynamodb(engine.endpoint, check))


def _fake() -> Subject:
    table = FakeLinkTable()

    async def reserve(link: Link) -> None:
        table.reserve(link.key)

    async def stored(link: Link) -> Link | None:
        return table.links.get(link.key)

    return Subject(table, reserve, stored)


async def _on_dynamodb(endpoint: str, check: Check) -> None:
    async with open_dynamodb(endpoint) as client:

        async def reserve(link: Link) -> None:
            reservation = Reservation(
                key=link.key, user_id=link.user_id, event_id=link.event_id, at=link.created_at, redis_run_id="r"
            )
            await client.put_item(TableName=LINKS.name, Item=reservation_to_row(reservation))

        async def stored(link: Link) -> Link | None:
            answer = await client.get_item(TableName=LINKS.name, Key=row_key(link.key), ConsistentRead=True)
            return link_from_row(answer["Item"]) if "Item" in answer else None

        await check(Subject(DynamoDBLinkTable(client, timeout_s=5), reserve, stored))


def code() -> str:
    """A code no other test has."""
    return f"writer-{next(_numbers)}"


def stored_event(link: Link) -> StoredEvent:
    """The event of a link's version, as it comes from Kafka."""
    return StoredEvent(event_of(link), encode_event(event_of(link)))


@pytest.mark.rule("W1", "W4")
def test_event_rows_are_put_once_and_tell_whose_they_are(run: Callable[[Check], None]) -> None:
    """The first event of a version is stored, a second is told EXISTS, and the row names the first."""

    async def check(subject: Subject) -> None:
        first = make_link(code())
        items = [stored_event(first), *(stored_event(make_link(code())) for _ in range(60))]

        assert await subject.table.insert_events(items) == [Result.STORED] * 61
        second = stored_event(another_event(first))
        results = await subject.table.insert_events([second, stored_event(make_link(code()))])
        assert results == [Result.EXISTS, Result.STORED]
        assert await subject.table.stored_event_ids([second, stored_event(make_link(code()))]) == [first.event_id, None]

    run(check)


@pytest.mark.rule("W2")
def test_projections_only_move_forward(run: Callable[[Check], None]) -> None:
    """Insert if absent, update if older, never back, and never out of nothing."""

    async def check(subject: Subject) -> None:
        name = code()
        versions = [make_link(name, version=version) for version in (1, 2, 3)]

        assert await subject.table.update_links([versions[1]]) == [Result.REFUSED]
        assert await subject.table.read_links([versions[1]]) == [Result.ABSENT]
        assert await subject.table.insert_links([versions[0]]) == [Result.STORED]
        assert await subject.table.insert_links([versions[1]]) == [Result.EXISTS]
        assert await subject.table.update_links([versions[2]]) == [Result.STORED]
        assert await subject.table.update_links([versions[1]]) == [Result.REFUSED]
        assert await subject.table.update_links([versions[2]]) == [Result.REFUSED]
        assert await subject.stored(versions[0]) == versions[2]
        assert await subject.table.read_links([versions[0]]) == [Result.EXISTS]

    run(check)


@pytest.mark.rule("W2", "K2")
def test_a_reservation_counts_as_older_than_any_version(run: Callable[[Check], None]) -> None:
    """A RESERVED row refuses an insert and takes an update."""

    async def check(subject: Subject) -> None:
        link = make_link(code())
        await subject.reserve(link)

        assert await subject.table.insert_links([link]) == [Result.EXISTS]
        assert await subject.table.update_links([link]) == [Result.STORED]
        assert await subject.stored(link) == link

    run(check)


@pytest.mark.rule("W2")
def test_what_is_there_is_told_version_by_version(run: Callable[[Check], None]) -> None:
    """Versions of projections, none for a reservation or for nothing; and whether the first event row is there."""

    async def check(subject: Subject) -> None:
        whole, later, reserved, absent = (make_link(code(), version=version) for version in (1, 3, 1, 1))
        await subject.table.insert_events([stored_event(whole), stored_event(later)])
        await subject.table.insert_links([whole, later])
        await subject.reserve(reserved)
        keys = [whole.key, later.key, reserved.key, absent.key]

        assert await subject.table.versions(keys) == [1, 3, None, None]
        assert await subject.table.have_first_events(keys) == [True, False, False, False]

    run(check)


@pytest.mark.rule("W1")
def test_an_event_row_gives_back_the_event(dynamodb: DynamoDBEngine) -> None:
    """What is stored is the event to the byte."""

    async def check() -> None:
        async with open_dynamodb(dynamodb.endpoint) as client:
            link = make_link(code())
            await DynamoDBLinkTable(client, timeout_s=5).insert_events([stored_event(link)])
            key = row_key(link.key, event_sk(1))
            answer = await client.get_item(TableName=LINKS.name, Key=key, ConsistentRead=True)
            assert event_from_row(answer["Item"]) == event_of(link)

    asyncio.run(check())
