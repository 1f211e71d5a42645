"""Consistent reads of many items of table `clicks`: 100 a call, four calls at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analytics.adapters.clicks_items import Item
from chassis.dynamodb import batch_get
from contracts.tables import CLICKS

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

_CALLS_MAX = 4  # at a time, so that a cold start does not starve queries


async def read_items(client: "DynamoDBClient", keys: Sequence[Item], *, timeout_s: float) -> list[Item]:
    """The items of these keys that exist, in no order. Raises Unavailable unless every key was answered."""
    return await batch_get(client, CLICKS.name, keys, timeout_s=timeout_s, calls_max=_CALLS_MAX)
