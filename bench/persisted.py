"""How many of the links that were made have reached the table."""

import asyncio
import sys
import time

from chassis.dynamodb import open_dynamodb
from contracts.tables import LINKS, META

_PATIENCE_S = 600.0  # a database on one machine takes some 1 000 links a second, and a bench makes them faster
_LOOK_S = 2.0
_STILL_S = 60.0  # without one more: no more will come


async def persisted(dynamodb: str, name: str, expected: int) -> int:
    """The links of a target in the table, once there are as many as were acknowledged and no more come."""
    began = grown = time.monotonic()
    count = 0
    while True:
        before, count = count, await _count(dynamodb, f"https://example.com/{name}/")
        now = time.monotonic()
        grown = now if count > before else grown
        if (count >= expected and count == before) or now - began > _PATIENCE_S or now - grown > _STILL_S:
            return count
        print(f"{name}: {count} of {expected} links are in the table", file=sys.stderr)
        await asyncio.sleep(_LOOK_S)


async def _count(dynamodb: str, prefix: str) -> int:
    async with open_dynamodb(dynamodb, timeout_s=30) as client:
        count = 0
        async for page in client.get_paginator("scan").paginate(
            TableName=LINKS.name,
            Select="COUNT",
            FilterExpression="sk = :meta AND begins_with(long_url, :prefix)",
            ExpressionAttributeValues={":meta": {"S": META}, ":prefix": {"S": prefix}},
            ConsistentRead=True,
        ):
            count += page["Count"]
        return count
