"""Consistent reads of many items of table `clicks`: 100 a call, four calls at a time."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analytics.adapters.clicks_items import Item
from chassis.dynamodb import dynamodb_errors
from chassis.errors import Unavailable
from contracts.tables import CLICKS

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

_READS_MAX = 100  # of one BatchGetItem
_CALLS_MAX = 4  # at a time, so that a cold start does not starve queries
_PASSES_MAX = 5  # over keys that the database left unprocessed


async def read_items(client: "DynamoDBClient", keys: Sequence[Item], *, timeout_s: float) -> list[Item]:
    """The items of these keys that exist, in no order. Raises Unavailable unless every key was answered."""
    turns = asyncio.Semaphore(_CALLS_MAX)

    async def read(part: Sequence[Item]) -> list[Item]:
        async with turns:
            return await _read_part(client, part, timeout_s)

    try:
        async with asyncio.TaskGroup() as tasks:
            parts = [keys[start : start + _READS_MAX] for start in range(0, len(keys), _READS_MAX)]
            calls = [tasks.create_task(read(part)) for part in parts]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures  # one is as good as all: the read is repeated
    return [item for call in calls for item in call.result()]


async def _read_part(client: "DynamoDBClient", keys: Sequence[Item], timeout_s: float) -> list[Item]:
    found: list[Item] = []
    left = list(keys)
    with dynamodb_errors():
        async with asyncio.timeout(timeout_s):
            for _ in range(_PASSES_MAX):
                answer = await client.batch_get_item(RequestItems={CLICKS.name: {"Keys": left, "ConsistentRead": True}})
                found += answer["Responses"].get(CLICKS.name, [])
                unprocessed = answer["UnprocessedKeys"].get(CLICKS.name)
                if unprocessed is None:
                    return found
                left = [dict(key) for key in unprocessed["Keys"]]
    raise Unavailable("unavailable", "The database leaves reads undone.", retry_after_s=1)
