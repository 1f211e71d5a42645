"""Rows of counts in DynamoDB: conditional PartiQL statements, 25 a call, each with a result of its own.

An INSERT of an existing key is DuplicateItem for that statement alone; an UPDATE whose WHERE does not hold, or whose
row is not there, is ConditionalCheckFailed. So a version never replaces one that holds more of the log.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from analytics.adapters.clicks_items import day_start, hour_start, row_fields, row_from, row_key
from analytics.adapters.clicks_reads import read_items
from analytics.domain.book import Write
from analytics.domain.clicks import AnyId, Day, Hour
from analytics.domain.rows import AnyImage, RowImage, TopImage
from chassis.dynamodb import dynamodb_errors
from chassis.dynamodb_statements import Statements
from chassis.errors import Unavailable
from contracts.link import LinkKey, UserId
from contracts.tables import CLICKS, clicks_pk, clicks_tops_pk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import BatchStatementRequestTypeDef as Statement
    from types_aiobotocore_dynamodb.type_defs import BatchStatementResponseTypeDef as Answer

_QUERIES_MAX = 16  # days of one question that are read at the same time


class DynamoDBRowStore:
    """RowStore on table `clicks`. `timeout_s` bounds each request."""

    def __init__(self, client: "DynamoDBClient", statements: Statements, *, timeout_s: float) -> None:
        self._client = client
        self._statements = statements
        self._timeout_s = timeout_s

    async def load(self, row_ids: Collection[AnyId]) -> Mapping[AnyId, AnyImage]:
        """Those of these rows that exist."""
        keys = [row_key(row_id) for row_id in row_ids]
        rows = [row_from(item) for item in await read_items(self._client, keys, timeout_s=self._timeout_s)]
        return {row.id: row for row in rows}

    async def store(self, writes: Sequence[Write]) -> Sequence[bool]:
        """Write rows; whether each was taken."""
        if not writes:
            return []
        statements = [_update(write.image) if write.stored else _insert(write.image) for write in writes]
        return [_taken(answer) for answer in await self._statements.execute(statements)]

    async def read(self, key: LinkKey, hours: range) -> Sequence[RowImage]:
        """The rows of a link in these hours."""
        found = await self._query([clicks_pk(key, day) for day in _days(hours)])
        return [row for row in found if isinstance(row, RowImage) and row.id.hour in hours]

    async def read_tops(self, user_id: UserId, days: range) -> Sequence[TopImage]:
        """The rows of an account's top links of these days."""
        found = await self._query([clicks_tops_pk(user_id, day_start(Day(day))) for day in days])
        return [row for row in found if isinstance(row, TopImage)]

    async def _query(self, pks: Sequence[str]) -> list[AnyImage]:
        """All rows with these partition keys."""
        turns = asyncio.Semaphore(_QUERIES_MAX)

        async def query(pk: str) -> list[AnyImage]:
            async with turns:
                return await self._query_one(pk)

        try:
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(query(pk)) for pk in pks]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # one is as good as all: nothing is known without all days
        return [row for call in calls for row in call.result()]

    async def _query_one(self, pk: str) -> list[AnyImage]:
        pages = self._client.get_paginator("query").paginate(
            TableName=CLICKS.name,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            ConsistentRead=True,
        )
        with dynamodb_errors():
            async with asyncio.timeout(self._timeout_s):
                return [row_from(item) async for page in pages for item in page["Items"]]


def _days(hours: range) -> list[datetime]:
    if not hours:
        return []
    first, last = (hour_start(Hour(hour)).date() for hour in (hours[0], hours[-1]))
    midnight = hour_start(Hour(hours[0])).replace(hour=0)
    return [midnight + timedelta(days=number) for number in range((last - first).days + 1)]


def _insert(image: AnyImage) -> "Statement":
    item = row_key(image.id) | row_fields(image)
    places = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{CLICKS.name}" VALUE {{{places}}}', "Parameters": list(item.values())}


def _update(image: AnyImage) -> "Statement":
    fields = row_fields(image)
    key = row_key(image.id)
    places = ", ".join(f"{name} = ?" for name in fields)
    older = "(ep < ? OR (ep = ? AND off < ?))"
    return {
        "Statement": f'UPDATE "{CLICKS.name}" SET {places} WHERE pk = ? AND sk = ? AND {older}',  # noqa: S608 (our names)
        "Parameters": [*fields.values(), *key.values(), fields["ep"], fields["ep"], fields["off"]],
    }


def _taken(answer: "Answer") -> bool:
    """Whether the statement was done; the call's own status says nothing of it."""
    error = answer.get("Error")
    if error is None:
        return True
    code = str(error.get("Code"))
    if code.startswith(("DuplicateItem", "ConditionalCheckFailed")):  # engines differ in the ends of these words
        return False
    raise Unavailable("unavailable", f"The database did not write a row: {code}.", retry_after_s=1)
