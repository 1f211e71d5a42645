"""The index of entries in table `audit`: a row under the account, and one under the link."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

from audit.domain.leaf import IndexRow
from audit.domain.listing import Cursor
from chassis.dynamodb import dynamodb_errors
from chassis.errors import Unavailable
from contracts.link import EventId, LinkKey, UserId
from contracts.tables import AUDIT, KEY, account_pk, audit_account_sk, audit_link_pk, audit_place_sk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import (
        AttributeValueTypeDef,
        QueryInputTypeDef,
        UniversalAttributeValueTypeDef,
        WriteRequestTypeDef,
        WriteRequestUnionTypeDef,
    )

_WRITE_MAX = 25  # BatchWriteItem takes no more
_PARALLEL = 4  # enough to hide the round trip, too few to crowd out reads
_TRIES = 3  # of what the database left out of a batch, before the consumer pauses


class DynamoDBEntryIndex:
    """The EntryIndex port."""

    def __init__(self, client: "DynamoDBClient", *, timeout_s: float = 2.0) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def store(self, rows: Sequence[IndexRow]) -> None:
        """Puts both rows of each entry, in batches of 25, four at a time."""
        items = list(chain.from_iterable(_items(row) for row in rows))
        batches = iter([items[at : at + _WRITE_MAX] for at in range(0, len(items), _WRITE_MAX)])

        async def work() -> None:
            for batch in batches:  # the workers share the iterator
                await self._put([{"PutRequest": {"Item": item}} for item in batch])

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(_PARALLEL, -(-len(items) // _WRITE_MAX))):
                    tasks.create_task(work())
        except* Unavailable as group:
            away = group.exceptions[0]
        else:
            return
        raise away

    async def of_account(self, user_id: UserId, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        """Newest first; the account's key, which sorts behind all times, is never among them."""
        before = audit_account_sk(after.at, after.partition, after.offset) if after else KEY
        return await self._query(account_pk(user_id), "sk < :sk", before, limit=limit, forward=False)

    async def of_link(self, key: LinkKey, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        """Oldest first."""
        behind = audit_place_sk(after.partition, after.offset) if after else "0"
        return await self._query(audit_link_pk(key), "sk > :sk", behind, limit=limit, forward=True)

    async def has_earlier(self, row: IndexRow, event_id: EventId) -> bool:
        """Reads the link's rows before that one; called for versions that are not news, which are rare."""
        request: QueryInputTypeDef = {
            "TableName": AUDIT.name,
            "KeyConditionExpression": "pk = :pk AND sk < :sk",
            "FilterExpression": "event_id = :event_id",
            "ExpressionAttributeValues": {
                ":pk": {"S": audit_link_pk(row.key)},
                ":sk": {"S": audit_place_sk(row.partition, row.offset)},
                ":event_id": {"S": event_id},
            },
            "ConsistentRead": True,
        }
        while True:
            items, last = await self._page(request)
            if items or not last:
                return bool(items)
            request["ExclusiveStartKey"] = last

    async def _query(self, pk: str, condition: str, sk: str, *, limit: int, forward: bool) -> list[IndexRow]:
        rows: list[IndexRow] = []
        request: QueryInputTypeDef = {
            "TableName": AUDIT.name,
            "KeyConditionExpression": f"pk = :pk AND {condition}",
            "ExpressionAttributeValues": {":pk": {"S": pk}, ":sk": {"S": sk}},
            "ScanIndexForward": forward,
            "ConsistentRead": True,
            "Limit": limit,
        }
        while True:
            items, last = await self._page(request)
            rows += [_row(item) for item in items]
            if len(rows) >= limit or not last:
                return rows[:limit]
            request["ExclusiveStartKey"] = last

    async def _page(
        self, request: "QueryInputTypeDef"
    ) -> "tuple[list[dict[str, AttributeValueTypeDef]], dict[str, AttributeValueTypeDef] | None]":
        with dynamodb_errors():
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.query(**request)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def _put(self, requests: "Sequence[WriteRequestTypeDef]") -> None:
        left: Sequence[WriteRequestUnionTypeDef] = requests
        for _ in range(_TRIES):
            with dynamodb_errors():
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._client.batch_write_item(RequestItems={AUDIT.name: left})
            left = answer["UnprocessedItems"].get(AUDIT.name, [])
            if not left:
                return
        raise Unavailable("unavailable", "The database throttles.", retry_after_s=1)


def _items(row: IndexRow) -> "list[dict[str, UniversalAttributeValueTypeDef]]":
    content: dict[str, UniversalAttributeValueTypeDef] = {
        "user_id": {"S": row.user_id},
        "link_key": {"S": row.key},
        "short_code": {"S": row.short_code},
        "version": {"N": str(row.version)},
        "at": {"S": row.at.isoformat(timespec="microseconds")},
        "event_id": {"S": row.event_id},
        "type": {"S": row.event_type},
        "partition": {"N": str(row.partition)},
        "offset": {"N": str(row.offset)},
        "leaf_index": {"N": str(row.leaf_index)},
    }
    place = audit_place_sk(row.partition, row.offset)
    items = [{"pk": {"S": audit_link_pk(row.key)}, "sk": {"S": place}} | content]
    if row.user_id:
        of_account = audit_account_sk(row.at, row.partition, row.offset)
        items.append({"pk": {"S": account_pk(row.user_id)}, "sk": {"S": of_account}} | content)
    return items


def _row(item: "Mapping[str, AttributeValueTypeDef]") -> IndexRow:
    return IndexRow(
        user_id=UserId(item["user_id"]["S"]),
        key=LinkKey(item["link_key"]["S"]),
        short_code=item["short_code"]["S"],
        version=int(item["version"]["N"]),
        at=datetime.fromisoformat(item["at"]["S"]),
        event_id=EventId(item["event_id"]["S"]),
        event_type=item["type"]["S"],
        partition=int(item["partition"]["N"]),
        offset=int(item["offset"]["N"]),
        leaf_index=int(item["leaf_index"]["N"]),
    )
