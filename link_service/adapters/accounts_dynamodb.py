"""Table `accounts` in DynamoDB: `U#<user>`/META the account, `U#<user>`/`K#<id>` a key, `H#<hash>`/KEY its look-up,
`U#<user>`/`R#<name>` what the idempotency key of a request for one stands for."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chassis.auth import Plan
from chassis.dynamodb import dynamodb_errors
from chassis.errors import Unavailable
from contracts.link import UserId
from contracts.tables import ACCOUNTS, META, account_pk, key_hash_pk
from link_service.ports import KeyClaim, StoredKey

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef as Attribute

_KEY = "KEY"


class DynamoDBAccounts:
    """The port Accounts."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client

    async def open_account(self, user_id: UserId, plan: Plan, at: datetime) -> None:
        """Makes the account if it is new; one that exists keeps its plan.

        Raises:
            Unavailable: the database is away.
        """
        item: dict[str, Attribute] = {
            "pk": {"S": account_pk(user_id)},
            "sk": {"S": META},
            "user_id": {"S": user_id},
            "plan": {"S": plan.value},
            "created_at": {"S": at.isoformat(timespec="microseconds")},
        }
        try:
            with dynamodb_errors():
                await self._client.put_item(
                    TableName=ACCOUNTS.name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(#pk)",
                    ExpressionAttributeNames={"#pk": "pk"},
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    async def claim_key(self, user_id: UserId, name: str, claim: KeyClaim, *, replaces_before: datetime) -> KeyClaim:
        """Stores the claim under this name unless there is one that is not from before; the one that is stored then.

        Raises:
            Unavailable: the database is away; it may have been stored.
        """
        pk, sk = account_pk(user_id), f"R#{name}"
        item: dict[str, Attribute] = {
            "pk": {"S": pk},
            "sk": {"S": sk},
            "body_hash": {"S": claim.body_hash},
            "salt": {"S": claim.salt},
            "at": {"S": _text(claim.at)},
        }
        try:
            with dynamodb_errors():
                await self._client.put_item(
                    TableName=ACCOUNTS.name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(#pk) OR #at < :before",
                    ExpressionAttributeNames={"#pk": "pk", "#at": "at"},
                    ExpressionAttributeValues={":before": {"S": _text(replaces_before)}},
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            row = await self._get(pk, sk)
            if row is None:
                raise Unavailable("unavailable", "The claim of a key went away.", retry_after_s=1) from None
            return KeyClaim(row["body_hash"]["S"], row["salt"]["S"], datetime.fromisoformat(row["at"]["S"]))
        return claim

    async def add_key(self, key: StoredKey) -> None:
        """Stores a key: first what its owner sees, then the look-up that makes it valid.

        Raises:
            Unavailable: the database is away; the key may have been stored, but nobody has been told it.
        """
        item: dict[str, Attribute] = {
            "key_id": {"S": key.key_id},
            "key_hash": {"S": key.key_hash},
            "user_id": {"S": key.user_id},
            "scopes": {"L": [{"S": scope} for scope in key.scopes]},
            "prefix": {"S": key.prefix},
            "created_at": {"S": key.created_at.isoformat(timespec="microseconds")},
        }
        with dynamodb_errors():
            for pk, sk in ((account_pk(key.user_id), f"K#{key.key_id}"), (key_hash_pk(key.key_hash), _KEY)):
                await self._client.put_item(TableName=ACCOUNTS.name, Item={"pk": {"S": pk}, "sk": {"S": sk}, **item})

    async def find_key(self, key_hash: str) -> tuple[StoredKey, Plan] | None:
        """The key of a hash and the plan of its account, by consistent reads.

        Raises:
            Unavailable: the database is away.
        """
        row = await self._get(key_hash_pk(key_hash), _KEY)
        if row is None:
            return None
        user_id = UserId(row["user_id"]["S"])
        key = StoredKey(
            key_id=row["key_id"]["S"],
            key_hash=key_hash,
            user_id=user_id,
            scopes=tuple(scope["S"] for scope in row["scopes"]["L"]),
            prefix=row["prefix"]["S"],
            created_at=datetime.fromisoformat(row["created_at"]["S"]),
        )
        return key, await self._plan(user_id)

    async def _plan(self, user_id: UserId) -> Plan:
        row = await self._get(account_pk(user_id), META)
        return Plan(row["plan"]["S"]) if row is not None else Plan.FREE

    async def _get(self, pk: str, sk: str) -> "dict[str, Attribute] | None":
        with dynamodb_errors():
            answer = await self._client.get_item(
                TableName=ACCOUNTS.name, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
            )
        return answer.get("Item")


def _text(at: datetime) -> str:
    """A time such that texts sort as times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
