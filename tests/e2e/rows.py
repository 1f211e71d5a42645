"""What the tables really hold, read past every process."""

import asyncio

from chassis.dynamodb import open_dynamodb
from contracts.link import Link, LinkEvent, LinkKey
from contracts.link_rows import event_from_row, link_from_row, row_key
from contracts.tables import LINKS, META, link_pk


def stored_events(endpoint: str, codes: list[str]) -> dict[str, list[LinkEvent]]:
    """The event rows of each code, oldest first."""

    async def read() -> dict[str, list[LinkEvent]]:
        async with open_dynamodb(endpoint) as client:
            found = {}
            for code in codes:
                answer = await client.query(
                    TableName=LINKS.name,
                    KeyConditionExpression="pk = :pk AND begins_with(sk, :e)",
                    ExpressionAttributeValues={":pk": {"S": link_pk(LinkKey(code))}, ":e": {"S": "E#"}},
                    ConsistentRead=True,
                )
                found[code] = [event_from_row(row) for row in answer["Items"]]
            return found

    return asyncio.run(read())


def stored_codes(endpoint: str, long_url: str) -> list[str]:
    """The codes of all links that lead to an address."""

    async def read() -> list[str]:
        async with open_dynamodb(endpoint) as client:
            codes: list[str] = []
            async for page in client.get_paginator("scan").paginate(
                TableName=LINKS.name,
                FilterExpression="sk = :meta AND long_url = :url",
                ExpressionAttributeValues={":meta": {"S": META}, ":url": {"S": long_url}},
                ConsistentRead=True,
            ):
                codes += [row["short_code"]["S"] for row in page["Items"]]
            return codes

    return asyncio.run(read())


def stored_link(endpoint: str, code: str) -> Link | None:
    """The projection of a code."""

    async def read() -> Link | None:
        async with open_dynamodb(endpoint) as client:
            key = row_key(LinkKey(code))
            row = (await client.get_item(TableName=LINKS.name, Key=key, ConsistentRead=True)).get("Item")
            return None if row is None else link_from_row(row)

    return asyncio.run(read())


def remove_link(endpoint: str, code: str) -> None:
    """Takes the projection of a code away, as a person's mistake would."""

    async def remove() -> None:
        async with open_dynamodb(endpoint) as client:
            await client.delete_item(TableName=LINKS.name, Key=row_key(LinkKey(code)))

    asyncio.run(remove())
