"""Deliveries in DynamoDB: one row for an endpoint and an event, pending ones in the sparse index `due` by next_at.

A row is in the index as long as it has `due` and `next_at`. A claim moves next_at to its lease's end, so that a claim
whose holder died comes up again by itself. An outcome is conditional on the claim's id [H2].
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from chassis.dynamodb import dynamodb_errors
from chassis.errors import Unavailable
from contracts.link import EventId, EventType, UserId
from contracts.tables import WEBHOOKS, deliveries_pk, due_pk
from webhook.domain.deliveries import ROW_LIFE, Delivery, DeliveryState, due_bucket
from webhook.domain.endpoints import EndpointId
from webhook.ports import Cursor, DuePage

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef as Value
    from types_aiobotocore_dynamodb.type_defs import BatchStatementResponseTypeDef as StatementAnswer
    from types_aiobotocore_dynamodb.type_defs import QueryInputTypeDef
    from types_aiobotocore_dynamodb.type_defs import UniversalAttributeValueTypeDef as WritableValue

_STATEMENTS_MAX = 25  # of one BatchExecuteStatement
_INDEX = WEBHOOKS.indexes[0]


class DynamoDBDeliveryStore:
    """DeliveryStore on DynamoDB. `timeout_s` bounds each call of it."""

    def __init__(self, client: "DynamoDBClient", *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def add(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Puts rows where there are none, 25 conditional statements a call, each with a result of its own."""
        added: list[bool] = []
        for start in range(0, len(deliveries), _STATEMENTS_MAX):
            rows = [_row(delivery) for delivery in deliveries[start : start + _STATEMENTS_MAX]]
            with dynamodb_errors():
                async with asyncio.timeout(self._timeout_s):
                    response = await self._client.batch_execute_statement(
                        Statements=[{"Statement": _insert(row), "Parameters": list(row.values())} for row in rows]
                    )
            added += [_was_added(answer) for answer in response["Responses"]]
        return added

    async def due(self, bucket: int, *, now: datetime, after: Cursor | None, limit: int) -> DuePage:
        """Pending deliveries of a bucket whose next_at has come, a page of them."""
        query: QueryInputTypeDef = {
            "TableName": WEBHOOKS.name,
            "IndexName": _INDEX.name,
            "KeyConditionExpression": "#due = :due AND #next_at <= :now",
            "ExpressionAttributeNames": {"#due": _INDEX.pk, "#next_at": _INDEX.sk},
            "ExpressionAttributeValues": {":due": {"S": due_pk(bucket)}, ":now": {"N": _milliseconds(now)}},
            "Limit": limit,
        }
        if after is not None:
            query["ExclusiveStartKey"] = json.loads(after)
        with dynamodb_errors():
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.query(**query)
        last = response.get("LastEvaluatedKey")
        return DuePage([_delivery(row) for row in response["Items"]], Cursor(json.dumps(last)) if last else None)

    async def claim(self, delivery: Delivery, *, claim: str, until: datetime) -> Delivery | None:
        """Claims a delivery that is still as it was read."""
        assert delivery.next_at is not None
        values: dict[str, WritableValue] = {
            ":seen": {"N": _milliseconds(delivery.next_at)},
            ":pending": {"S": DeliveryState.PENDING.value},
            ":until": {"N": _milliseconds(until)},
            ":claim": {"S": claim},
        }
        row = await self._update(
            delivery,
            "SET next_at = :until, claim = :claim",
            "next_at = :seen AND #state = :pending",
            values,
            {"#state": "state"},
        )
        return _delivery(row) if row is not None else None

    async def settle(self, delivery: Delivery) -> bool:
        """Stores the outcome of a claimed delivery."""
        values: dict[str, WritableValue] = {
            ":claim": {"S": delivery.claim},
            ":state": {"S": delivery.state.value},
            ":attempts": {"N": str(delivery.attempts)},
            ":status": {"N": str(delivery.last_status)},
            ":error": {"S": delivery.last_error},
        }
        update = "SET #state = :state, attempts = :attempts, last_status = :status, last_error = :error"
        if delivery.next_at is not None:
            values[":next_at"] = {"N": _milliseconds(delivery.next_at)}
            update += ", next_at = :next_at REMOVE claim"
        else:
            update += " REMOVE claim, next_at, due"
        row = await self._update(delivery, update, "claim = :claim", values, {"#state": "state"})
        return row is not None

    async def newest(self, endpoint_id: EndpointId, *, before: EventId | None, limit: int) -> Sequence[Delivery]:
        """Deliveries of an endpoint, newest event first."""
        values: dict[str, WritableValue] = {":pk": {"S": deliveries_pk(endpoint_id)}}
        condition = "pk = :pk"
        if before is not None:
            values[":before"] = {"S": before}
            condition += " AND sk < :before"
        with dynamodb_errors():
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.query(
                    TableName=WEBHOOKS.name,
                    KeyConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ScanIndexForward=False,
                    Limit=limit,
                )
        return [_delivery(row) for row in response["Items"]]

    async def _update(
        self,
        delivery: Delivery,
        update: str,
        condition: str,
        values: "Mapping[str, WritableValue]",
        names: Mapping[str, str],
    ) -> "Mapping[str, Value] | None":
        """The row after the update; None if the condition did not hold."""
        try:
            with dynamodb_errors():
                async with asyncio.timeout(self._timeout_s):
                    response = await self._client.update_item(
                        TableName=WEBHOOKS.name,
                        Key={"pk": {"S": deliveries_pk(delivery.endpoint_id)}, "sk": {"S": delivery.event_id}},
                        UpdateExpression=update,
                        ConditionExpression=condition,
                        ExpressionAttributeNames=names,
                        ExpressionAttributeValues=values,
                        ReturnValues="ALL_NEW",
                    )
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return None
        return response["Attributes"]


def _row(delivery: Delivery) -> "dict[str, WritableValue]":
    row: dict[str, WritableValue] = {
        "pk": {"S": deliveries_pk(delivery.endpoint_id)},
        "sk": {"S": delivery.event_id},
        "endpoint_id": {"S": delivery.endpoint_id},
        "user_id": {"S": delivery.user_id},
        "event_type": {"S": delivery.event_type.value},
        "short_code": {"S": delivery.short_code},
        "body": {"S": delivery.body},
        "traceparent": {"S": delivery.traceparent},
        "created_at": {"N": _milliseconds(delivery.created_at)},
        WEBHOOKS.ttl: {"N": str(int((delivery.created_at + ROW_LIFE).timestamp()))},
        "state": {"S": delivery.state.value},
        "attempts": {"N": str(delivery.attempts)},
        "last_status": {"N": str(delivery.last_status)},
        "last_error": {"S": delivery.last_error},
    }
    if delivery.next_at is not None:
        row["next_at"] = {"N": _milliseconds(delivery.next_at)}
        row["due"] = {"S": due_pk(due_bucket(delivery.endpoint_id, delivery.event_id))}
    if delivery.claim:
        row["claim"] = {"S": delivery.claim}
    return row


def _delivery(row: "Mapping[str, Value]") -> Delivery:
    return Delivery(
        endpoint_id=EndpointId(row["endpoint_id"]["S"]),
        user_id=UserId(row["user_id"]["S"]),
        event_id=EventId(row["sk"]["S"]),
        event_type=EventType(row["event_type"]["S"]),
        short_code=row["short_code"]["S"],
        body=row["body"]["S"],
        traceparent=row["traceparent"]["S"],
        created_at=_moment(row["created_at"]["N"]),
        state=DeliveryState(row["state"]["S"]),
        attempts=int(row["attempts"]["N"]),
        last_status=int(row["last_status"]["N"]),
        last_error=row["last_error"]["S"],
        next_at=_moment(row["next_at"]["N"]) if "next_at" in row else None,
        claim=row["claim"]["S"] if "claim" in row else "",
    )


def _insert(row: "Mapping[str, WritableValue]") -> str:
    names = ", ".join(f"'{name}': ?" for name in row)
    return f'INSERT INTO "{WEBHOOKS.name}" VALUE {{{names}}}'


def _was_added(answer: "StatementAnswer") -> bool:
    """Whether a statement put its row; False if there was one.

    Raises:
        Unavailable: it was throttled, or failed for a reason that is not its content's.
    """
    error = answer.get("Error")
    if error is None:
        return True
    if error.get("Code") in ("DuplicateItem", "DuplicateItemException"):
        return False
    raise Unavailable("unavailable", "The database did not take a statement.", retry_after_s=1)


def _milliseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))


def _moment(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
