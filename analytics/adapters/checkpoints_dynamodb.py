"""Checkpoints in DynamoDB: one item per partition and epoch, and one that tells a partition's newest epoch."""

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from analytics.adapters.clicks_items import (
    Item,
    checkpoint_from,
    checkpoint_item,
    checkpoint_key,
    epoch_from,
    epoch_key,
)
from analytics.adapters.clicks_reads import read_items
from analytics.domain.checkpoints import FIRST_EPOCH, Checkpoint
from chassis.dynamodb import dynamodb_errors
from contracts.tables import CLICKS

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient


_BEFORE_ANY: Item = {":off": {"N": "-1"}}


class DynamoDBCheckpoints:
    """CheckpointStore on table `clicks`. `timeout_s` bounds each request."""

    def __init__(self, client: "DynamoDBClient", *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def load(self, partitions: Collection[int]) -> Mapping[int, Checkpoint]:
        """The newest checkpoint of each partition that has one."""
        pointers = await self._read([epoch_key(partition) for partition in partitions])
        epochs = {int(item["sk"]["S"].removeprefix("P")): epoch_from(item) for item in pointers}
        keys = [checkpoint_key(partition, epochs.get(partition, FIRST_EPOCH)) for partition in partitions]
        found = [checkpoint_from(item) for item in await self._read(keys)]
        return {checkpoint.partition: checkpoint for checkpoint in found}

    async def save(self, checkpoint: Checkpoint) -> bool:
        """Store it if its offset is greater than the stored one of its epoch; whether it was."""
        return await self._put(
            checkpoint_item(checkpoint),
            only_if="attribute_not_exists(off) OR off < :off",
            values={":off": {"N": str(checkpoint.offset)}},
        )

    async def begin_epoch(self, checkpoint: Checkpoint) -> Checkpoint:
        """Make this the checkpoint to go on from, unless another owner was faster; returns the one that stands.

        The checkpoint first, what points to it second: a crash in between leaves the old epoch in force.
        """
        await self._put(
            checkpoint_item(checkpoint), only_if="attribute_not_exists(off) OR off < :off", values=_BEFORE_ANY
        )
        await self._put(
            epoch_key(checkpoint.partition) | {"v": {"N": "1"}, "ep": {"N": str(checkpoint.epoch)}},
            only_if="attribute_not_exists(ep) OR ep < :ep",
            values={":ep": {"N": str(checkpoint.epoch)}},
        )
        return (await self.load([checkpoint.partition]))[checkpoint.partition]

    async def _put(self, item: Item, *, only_if: str, values: Item) -> bool:
        with dynamodb_errors():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._client.put_item(
                        TableName=CLICKS.name,
                        Item=item,
                        ConditionExpression=only_if,
                        ExpressionAttributeValues=values,
                    )
            except self._client.exceptions.ConditionalCheckFailedException:
                return False
        return True

    async def _read(self, keys: list[Item]) -> list[Item]:
        return await read_items(self._client, keys, timeout_s=self._timeout_s)
