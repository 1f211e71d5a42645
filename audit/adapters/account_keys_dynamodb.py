"""Leaf keys in table `audit`: `U#<user_id>`/KEY and `P#<log>`/KEY, each made once by whoever comes first."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from audit.domain.leaf import ACCOUNT_KEY_BYTES, KeyKind, KeyOwner
from chassis.dynamodb import Item, batch_get, dynamodb_errors
from chassis.errors import Unavailable
from contracts.link import UserId
from contracts.tables import AUDIT, KEY, account_pk, audit_log_pk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

_WRITE_MAX = 25  # BatchExecuteStatement takes no more
_CACHED_MAX = 10_000  # 1 MB
_DUPLICATE = ("DuplicateItem", "DuplicateItemException")  # the service says the first, an engine the second
_INSERT = f"INSERT INTO \"{AUDIT.name}\" VALUE {{'pk': ?, 'sk': ?, 'key': ?}}"


class DynamoDBAccountKeys:
    """The AccountKeys port. `make_key` returns 32 unpredictable bytes."""

    def __init__(self, client: "DynamoDBClient", *, make_key: Callable[[int], bytes], timeout_s: float = 2.0) -> None:
        self._client = client
        self._make_key = make_key
        self._timeout_s = timeout_s
        self._cache: OrderedDict[KeyOwner, bytes] = OrderedDict()

    async def of(self, owners: Collection[KeyOwner]) -> Mapping[KeyOwner, bytes]:
        """The keys; a known one costs nothing, others one read, new ones a write and another read."""
        keys = {owner: self._cache[owner] for owner in owners if owner in self._cache}
        unknown = [owner for owner in dict.fromkeys(owners) if owner not in keys]
        keys |= await self._read(unknown)
        absent = [owner for owner in unknown if owner not in keys]
        for at in range(0, len(absent), _WRITE_MAX):
            await self._insert(absent[at : at + _WRITE_MAX])
        keys |= await self._read(absent)  # what is there now, whoever has put it there
        if any(owner not in keys for owner in owners):
            raise Unavailable("unavailable", "The database did not keep a key.", retry_after_s=1)
        self._remember(keys)
        return keys

    async def _read(self, owners: Sequence[KeyOwner]) -> dict[KeyOwner, bytes]:
        by_pk = {_pk(owner): owner for owner in owners}
        keys: list[Item] = [{"pk": {"S": pk}, "sk": {"S": KEY}} for pk in by_pk]
        items = await batch_get(self._client, AUDIT.name, keys, timeout_s=self._timeout_s)
        return {by_pk[item["pk"]["S"]]: bytes(item["key"]["B"]) for item in items}

    async def _insert(self, owners: Sequence[KeyOwner]) -> None:
        with dynamodb_errors():
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.batch_execute_statement(
                    Statements=[
                        {
                            "Statement": _INSERT,
                            "Parameters": [{"S": _pk(owner)}, {"S": KEY}, {"B": self._make_key(ACCOUNT_KEY_BYTES)}],
                        }
                        for owner in owners
                    ]
                )
        for result in answer["Responses"]:
            code = result.get("Error", {}).get("Code")
            if code is not None and code not in _DUPLICATE:
                raise Unavailable("unavailable", f"The database did not take a key: {code}.", retry_after_s=1)

    def _remember(self, keys: Mapping[KeyOwner, bytes]) -> None:
        for owner, key in keys.items():
            self._cache[owner] = key
            self._cache.move_to_end(owner)
        while len(self._cache) > _CACHED_MAX:
            self._cache.popitem(last=False)


def _pk(owner: KeyOwner) -> str:
    return account_pk(UserId(owner.name)) if owner.kind is KeyKind.ACCOUNT else audit_log_pk(owner.name)
