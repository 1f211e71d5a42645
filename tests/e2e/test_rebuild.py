"""Tables that are damaged or lost, and made again from the events by a person's command, on a system at work."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from chassis.dynamodb import open_dynamodb
from chassis.kafka.admin import Admin
from chassis.kafka.record import Position
from contracts.link import LinkKey, UserId
from contracts.link_rows import row_key
from contracts.tables import LINKS, META, link_pk, owner_pk
from linkmesh.cli.main import app
from linkmesh.client import Client, Problem
from linkmesh.local.storage import ensure_tables
from tests.e2e.waiting import eventually
from tests.system import RunningSystem, started_system

Rows = Mapping[tuple[str, str], Mapping[str, object]]
LINKS_MADE = 24


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of this module's own, without what rows do not need."""
    with started_system(
        tmp_path_factory.mktemp("rebuilt"), services=("link_service", "writer", "gateway"), traces=False
    ) as running:
        yield running


def make_links(client: Client, prefix: str) -> list[str]:
    """Links of all kinds: generated, chosen, changed, deleted, brought back."""
    codes = []
    for number in range(LINKS_MADE):
        chosen = f"{prefix}-{number}" if number % 3 == 0 else ""
        code = str(client.create_link(f"https://example.org/{number}", custom_code=chosen)["short_code"])
        if number % 2:
            client.update_link(code, {"title": f"Title {number}", "tags": ["a", "b"]})
        if number % 4 >= 2:
            client.delete_link(code)
        if number % 8 == 7:
            client.restore_link(code)
        codes.append(code)
    return codes


def all_rows(endpoint: str) -> Rows:
    """Every row of the table, past every process; without what a reservation leaves behind in the row of its link."""

    async def read() -> Rows:
        async with open_dynamodb(endpoint) as client:
            pages = client.get_paginator("scan").paginate(TableName=LINKS.name, ConsistentRead=True)
            return {(row["pk"]["S"], row["sk"]["S"]): bare(row) async for page in pages for row in page["Items"]}

    return asyncio.run(read())


def bare(row: Mapping[str, object]) -> Mapping[str, object]:
    """A row without the attributes of a reservation."""
    return {name: value for name, value in row.items() if name not in ("reserved_at", "redis_run_id")}


def listing(endpoint: str, user_id: str) -> Sequence[Mapping[str, object]]:
    """An account's links by the index, newest last."""

    async def read() -> Sequence[Mapping[str, object]]:
        async with open_dynamodb(endpoint) as client:
            answer = await client.query(
                TableName=LINKS.name,
                IndexName="by_owner",
                KeyConditionExpression="#owner = :owner",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":owner": {"S": owner_pk(UserId(user_id))}},
            )
            return [bare(row) for row in answer["Items"]]

    return asyncio.run(read())


def lose_table(endpoint: str) -> None:
    """The table is dropped, and made again, empty."""

    async def lose() -> None:
        async with open_dynamodb(endpoint) as client:
            await client.delete_table(TableName=LINKS.name)

    asyncio.run(lose())
    asyncio.run(ensure_tables(endpoint, [LINKS]))


def committed(bootstrap: str) -> Position:
    """How far the writer's group is."""

    async def ask() -> Position:
        async with Admin(bootstrap, client_id="test", timeout_s=20) as admin:
            return await admin.committed("database-writer")

    return asyncio.run(ask())


def written(endpoint: str, client: Client, codes: Sequence[str]) -> Rows | None:
    """All rows, once those of each code's newest version are there."""
    rows = all_rows(endpoint)
    for code in codes:
        version = client.get_link(code)["version"]
        if rows.get((link_pk(LinkKey(code)), META), {}).get("version") != {"N": str(version)}:
            return None
    return rows


def command(system: RunningSystem, *arguments: str, code: int = 0) -> dict[str, object]:
    """What `linkmesh rebuild … --json` says, in a thread as it runs a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        invoked = pool.submit(
            CliRunner().invoke, app, ["rebuild", *arguments, "--json", "--state", str(system.state)]
        ).result()
    assert invoked.exit_code == code, invoked.output
    told = json.loads(invoked.stdout)
    assert isinstance(told, dict)
    return told


@pytest.mark.rule("P1", "W1", "W2", "K2")
def test_a_lost_table_comes_back_from_the_topic_while_the_system_works(own: RunningSystem) -> None:
    """Every link, its history and its place among its owner's are as before; the writer's group goes on where it was;
    codes stay taken; what is made meanwhile is there, too."""
    endpoint, kafka = own.address("dynamodb"), own.address("kafka")
    with own.client() as client:
        codes = make_links(client, "chosen")
        before = eventually(lambda: written(endpoint, client, codes), timeout_s=60)
        owned = listing(endpoint, "dev")
        positions = committed(kafka)
        lose_table(endpoint)
        assert all_rows(endpoint) == {}
        made = str(client.create_link("https://example.org/meanwhile")["short_code"])

        told = command(own, "--from-kafka")

        records, links = told["records"], told["links"]
        assert isinstance(records, int)
        assert isinstance(links, int)
        assert records >= len([name for name in before if name[1] != META])
        assert links >= LINKS_MADE
        assert (told["missing"], told["headless"], told["rejected"]) == ([], [], {})
        after = eventually(lambda: written(endpoint, client, [*codes, made]), timeout_s=60)
        assert {name: after[name] for name in before} == before
        assert [row for row in listing(endpoint, "dev") if row in owned] == list(owned)
        assert all(committed(kafka)[partition] >= offset for partition, offset in positions.items())
        for code in codes:
            page = client.link_events(code)
            assert isinstance(page["items"], list)
            assert page["items"][-1]["version"] == page["current_version"]
        with pytest.raises(Problem) as refused:
            client.create_link("https://example.org/x", custom_code="chosen-0")
        assert refused.value.code == "custom_code_taken"


def damage(endpoint: str, codes: Sequence[str]) -> None:
    """Takes projections away, and turns others into something else."""

    async def break_some() -> None:
        async with open_dynamodb(endpoint) as client:
            for number, code in enumerate(codes):
                key = row_key(LinkKey(code))
                if number % 2:
                    await client.delete_item(TableName=LINKS.name, Key=key)
                else:
                    await client.update_item(
                        TableName=LINKS.name,
                        Key=key,
                        UpdateExpression="SET long_url = :url",
                        ExpressionAttributeValues={":url": {"S": "https://example.org/wrong"}},
                    )

    asyncio.run(break_some())


@pytest.mark.rule("W1", "W2")
def test_damaged_rows_are_repaired_from_the_event_rows(own: RunningSystem) -> None:
    """`--all` finds each that differs and leaves the others; a link that only a person can judge on is named, and makes
    it exit code 1."""
    endpoint = own.address("dynamodb")
    with own.client() as client:
        codes = make_links(client, "picked")
        before = eventually(lambda: written(endpoint, client, codes), timeout_s=60)
        damage(endpoint, codes[:9])

        first = command(own, "--all")
        second = command(own, "--all")

        total = len([name for name in before if name[1] == META])
        assert (first["rebuilt"], first["unchanged"], first["failed"]) == (9, total - 9, [])
        assert (second["rebuilt"], second["unchanged"], second["failed"]) == (0, total, [])
        assert all_rows(endpoint) == before

        remove_events(endpoint, codes[0])
        third = command(own, "--all", code=1)
        failed = third["failed"]
        assert isinstance(failed, list)
        assert [(one["short_code"], one["code"]) for one in failed] == [(codes[0], "link_not_found")]
        assert (third["rebuilt"], third["unchanged"], third["next_page_token"]) == (0, total - 1, "")


def remove_events(endpoint: str, code: str) -> None:
    """Takes the event rows of a code away."""

    async def remove() -> None:
        async with open_dynamodb(endpoint) as client:
            for pk, sk in all_keys:
                await client.delete_item(TableName=LINKS.name, Key={"pk": {"S": pk}, "sk": {"S": sk}})

    all_keys = [name for name in all_rows(endpoint) if name[0] == link_pk(LinkKey(code)) and name[1] != META]
    asyncio.run(remove())
