"""Endpoints in DynamoDB: one item an account, changed under an optimistic condition on its revision."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from chassis.dynamodb import Item, batch_get, dynamodb_errors
from contracts.link import UserId
from contracts.tables import WEBHOOKS, endpoints_pk
from webhook.domain.endpoints import Account, Endpoint, EndpointId

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef, UniversalAttributeValueTypeDef

_SK = "ENDPOINTS"


class DynamoDBEndpointStore:
    """EndpointStore on DynamoDB. `timeout_s` bounds each call of it."""

    def __init__(self, client: "DynamoDBClient", *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def of_accounts(self, user_ids: Collection[UserId]) -> Mapping[UserId, Account]:
        """The accounts' endpoints, read consistently."""
        accounts = {user_id: Account(user_id) for user_id in user_ids}
        keys: list[Item] = [{"pk": {"S": endpoints_pk(user_id)}, "sk": {"S": _SK}} for user_id in accounts]
        for row in await batch_get(self._client, WEBHOOKS.name, keys, timeout_s=self._timeout_s):
            account = _account(row)
            accounts[account.user_id] = account
        return accounts

    async def save(self, account: Account) -> bool:
        """Stores the account under the next revision, if the stored one is the one that was read."""
        condition = "revision = :seen" if account.revision else "attribute_not_exists(pk)"
        values: dict[str, UniversalAttributeValueTypeDef] = {":seen": {"N": str(account.revision)}}
        row: dict[str, UniversalAttributeValueTypeDef] = {
            "pk": {"S": endpoints_pk(account.user_id)},
            "sk": {"S": _SK},
            "user_id": {"S": account.user_id},
            "revision": {"N": str(account.revision + 1)},
            "endpoints": {"L": [{"M": _endpoint_to_map(endpoint)} for endpoint in account.endpoints]},
        }
        try:
            with dynamodb_errors():
                async with asyncio.timeout(self._timeout_s):
                    if account.revision:
                        await self._client.put_item(
                            TableName=WEBHOOKS.name,
                            Item=row,
                            ConditionExpression=condition,
                            ExpressionAttributeValues=values,
                        )
                    else:
                        await self._client.put_item(TableName=WEBHOOKS.name, Item=row, ConditionExpression=condition)
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True


def _endpoint_to_map(endpoint: Endpoint) -> "dict[str, AttributeValueTypeDef]":
    return {
        "endpoint_id": {"S": endpoint.endpoint_id},
        "url": {"S": endpoint.url},
        "secret": {"S": endpoint.secret},
        "event_types": {"L": [{"S": kind} for kind in endpoint.event_types]},
        "created_at": {"N": str(round(endpoint.created_at.timestamp() * 1000))},
        "enabled": {"BOOL": endpoint.enabled},
        "disabled_reason": {"S": endpoint.disabled_reason},
    }


def _account(row: "Mapping[str, AttributeValueTypeDef]") -> Account:
    user_id = UserId(row["user_id"]["S"])
    endpoints = tuple(_endpoint(user_id, item["M"]) for item in row["endpoints"]["L"])
    return Account(user_id, endpoints, int(row["revision"]["N"]))


def _endpoint(user_id: UserId, row: "Mapping[str, AttributeValueTypeDef]") -> Endpoint:
    return Endpoint(
        endpoint_id=EndpointId(row["endpoint_id"]["S"]),
        user_id=user_id,
        url=row["url"]["S"],
        secret=row["secret"]["S"],
        event_types=tuple(item["S"] for item in row["event_types"]["L"]),
        created_at=datetime.fromtimestamp(int(row["created_at"]["N"]) / 1000, UTC),
        enabled=row["enabled"]["BOOL"],
        disabled_reason=row["disabled_reason"]["S"],
    )
