"""Consistent reads of many items on a database that throttles: no key is ever taken for absent because of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from chassis.dynamodb import Item, batch_get, batch_get_pages, open_dynamodb
from chassis.errors import Unavailable
from contracts.link import LinkKey
from contracts.link_codec import UndecodableError
from contracts.link_rows import event_to_row, link_to_row, row_key
from contracts.tables import COUNTERS, LINKS
from link_service.adapters.link_table_dynamodb import DynamoDBLinkTable as LinkServiceTable
from linkmesh.local.engines import DynamoDBEngine
from tests.dynamodb_proxy import DynamoDBProxy, Rule, delayed, dynamodb_proxy, throttled, throttled_statements
from tests.dynamodb_proxy import unprocessed_reads as unprocessed
from tests.fakes.link_events import event_of, make_link
from writer.adapters.link_table_dynamodb import DynamoDBLinkTable
from writer.domain import Result
from writer.ports import StoredEvent

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

ENOUGH_S = 20.0  # for whatever should work, on a machine that is busy

Scenario = Callable[["DynamoDBClient"], Awaitable[None]]


@pytest.fixture
def proxy(dynamodb: DynamoDBEngine) -> Iterator[DynamoDBProxy]:
    """A proxy in front of the session's DynamoDB."""
    with dynamodb_proxy(dynamodb.endpoint) as running:
        yield running


def play(proxy: DynamoDBProxy, scenario: Scenario) -> None:
    """Runs a scenario with a client of the proxy."""

    async def main() -> None:
        async with open_dynamodb(proxy.endpoint, timeout_s=ENOUGH_S) as client:
            await scenario(client)

    asyncio.run(main())


def key(number: int | str) -> Item:
    """The key of an item of this file's own."""
    return {"pk": {"S": f"batch-get-{number}"}, "sk": {"S": "X"}}


async def put(client: "DynamoDBClient", numbers: range) -> None:
    """Stores items of these numbers."""
    for number in numbers:
        await client.put_item(TableName=COUNTERS.name, Item=key(number) | {"n": {"N": str(number)}, "m": {"S": "more"}})


@pytest.mark.rule("R5")
def test_keys_left_unprocessed_are_asked_again_and_never_absent(proxy: DynamoDBProxy) -> None:
    """R5: a key that the database leaves undone comes in a later page, in none as absent; the others do not wait."""

    async def scenario(client: "DynamoDBClient") -> None:
        await put(client, range(5))
        proxy.rule = unprocessed(times=2, keep=2)

        pages = [
            (sorted(key["pk"]["S"] for key in page.keys), sorted(item["pk"]["S"] for item in page.items))
            async for page in batch_get_pages(
                client, COUNTERS.name, [key(number) for number in (0, 1, "none", 2, 3, 4)], timeout_s=ENOUGH_S
            )
        ]

        names = [f"batch-get-{number}" for number in range(5)]
        assert pages == [
            (names[0:2], names[0:2]),
            ([names[2], "batch-get-none"], names[2:3]),
            (names[3:5], names[3:5]),
        ]

    play(proxy, scenario)


@pytest.mark.rule("R5", "C1")
def test_what_stays_unprocessed_is_unavailable_at_the_deadline(proxy: DynamoDBProxy) -> None:
    """R5, C1: however often the database leaves a key undone, it is asked with pauses, and in the end nobody knows."""

    async def scenario(client: "DynamoDBClient") -> None:
        proxy.rule = unprocessed(times=10_000, keep=0)
        began = asyncio.get_running_loop().time()

        with pytest.raises(Unavailable):
            await batch_get(client, COUNTERS.name, [key(1)], timeout_s=0.5)

        assert 0.4 < asyncio.get_running_loop().time() - began < ENOUGH_S
        assert 2 <= proxy.calls["BatchGetItem"] <= 6  # after 20, 40, 80, 160 ms: a throttled table is not hammered

    play(proxy, scenario)


@pytest.mark.rule("C1", "P5")
@pytest.mark.parametrize("trouble", [throttled("BatchGetItem", times=1), delayed("BatchGetItem", 1.0)])
def test_a_database_that_throttles_or_hangs_is_unavailable(proxy: DynamoDBProxy, trouble: Rule) -> None:
    """C1: a call that is refused for throughput, or gets no answer in time, is the dependency's failure."""

    async def scenario(client: "DynamoDBClient") -> None:
        proxy.rule = trouble
        with pytest.raises(Unavailable):
            await batch_get(client, COUNTERS.name, [key(1)], timeout_s=0.3)

    play(proxy, scenario)


def test_a_hundred_keys_are_one_consistent_call_and_only_what_is_asked_for_comes(proxy: DynamoDBProxy) -> None:
    """250 keys, some named twice, are three calls; each item has the attributes that were asked for, no others."""

    async def scenario(client: "DynamoDBClient") -> None:
        await put(client, range(5))
        proxy.clear()
        wanted = [key(number) for number in range(248)] + [key(247), key(247)]

        found = await batch_get(
            client, COUNTERS.name, wanted, timeout_s=ENOUGH_S, attributes=("pk", "sk", "n"), calls_max=2
        )

        assert sorted(item["n"]["N"] for item in found) == ["0", "1", "2", "3", "4"]
        assert all(set(item) == {"pk", "sk", "n"} for item in found)
        asked = [body["RequestItems"][COUNTERS.name] for _, body in proxy.requests]
        assert sorted(len(spec["Keys"]) for spec in asked) == [48, 100, 100]
        assert all(spec["ConsistentRead"] for spec in asked)
        with pytest.raises(ValueError, match="101"):
            await anext(batch_get_pages(client, COUNTERS.name, [key(n) for n in range(101)], timeout_s=ENOUGH_S))
        assert await batch_get(client, COUNTERS.name, [], timeout_s=ENOUGH_S) == []

    play(proxy, scenario)


@pytest.mark.rule("W1", "W2", "W4")
def test_a_throttled_read_makes_no_conflict_and_no_absent_projection(proxy: DynamoDBProxy) -> None:
    """W1, W2: keys that the database leaves undone are neither events without a row, which would be taken for
    conflicts and buried, nor links without a projection."""

    async def scenario(client: "DynamoDBClient") -> None:
        table = DynamoDBLinkTable(client, timeout_s=ENOUGH_S)
        links = [make_link(f"throttled-{number}") for number in range(3)]
        for link in links:
            await client.put_item(TableName=LINKS.name, Item=link_to_row(link))
            await client.put_item(TableName=LINKS.name, Item=event_to_row(event_of(link), b""))

        proxy.rule = unprocessed(times=2, keep=1)
        ids = await table.stored_event_ids([StoredEvent(event_of(link), b"") for link in links])
        proxy.rule = unprocessed(times=2, keep=0)
        read = await table.read_links(links)

        assert ids == [link.event_id for link in links]
        assert read == [Result.EXISTS] * 3

        proxy.rule = unprocessed(times=10_000, keep=0)
        with pytest.raises(Unavailable):
            await DynamoDBLinkTable(client, timeout_s=0.2).read_links(links)

    play(proxy, scenario)


@pytest.mark.rule("R5", "C1")
def test_link_service_reads_what_the_database_left_undone_and_one_bad_row_harms_no_other(proxy: DynamoDBProxy) -> None:
    """R5: a throttled link is read in the end and never absent; a row that is not ours is its own link's error."""

    async def scenario(client: "DynamoDBClient") -> None:
        links = [make_link(f"resolved-{number}") for number in range(3)]
        for link in links[:2]:
            await client.put_item(TableName=LINKS.name, Item=link_to_row(link))
        await client.put_item(TableName=LINKS.name, Item=row_key(links[2].key) | {"state": {"S": "strange"}})
        keys = [*(link.key for link in links), LinkKey("resolved-none")]
        proxy.rule = unprocessed(times=3, keep=1)

        parts = [part async for part in LinkServiceTable(client, timeout_s=ENOUGH_S).read_many(keys)]

        assert [len(part) for part in parts] == [1, 1, 1, 1]
        found = {key: value for part in parts for key, value in part.items()}
        assert [found[key] for key in keys[:2]] == links[:2]
        assert isinstance(found[keys[2]], UndecodableError)
        assert found[keys[3]] is None

    play(proxy, scenario)


@pytest.mark.rule("W4", "C1")
def test_a_throttled_statement_is_no_verdict(proxy: DynamoDBProxy) -> None:
    """W4, C1: one throttled statement in a batch that HTTP calls a success: it is sent again, and all are stored."""

    async def scenario(client: "DynamoDBClient") -> None:
        table = DynamoDBLinkTable(client, timeout_s=ENOUGH_S)
        links = [make_link(f"statement-{number}") for number in range(3)]
        proxy.rule = throttled_statements(times=1, keep=2)

        assert await table.insert_links(links) == [Result.STORED] * 3

        for link in links:
            answer = await client.get_item(TableName=LINKS.name, Key=row_key(link.key), ConsistentRead=True)
            assert answer["Item"]["version"] == {"N": "1"}

    play(proxy, scenario)
