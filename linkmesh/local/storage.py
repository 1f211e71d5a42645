"""Make what the services expect to find: the tables of contracts/tables.py and the topics of contracts/topics.py.

Deployments create them from the same tables by other means; processes never create anything themselves.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from chassis.dynamodb import open_dynamodb
from chassis.kafka.admin import Admin, TopicSpec
from contracts.tables import TABLES, Index, Table
from contracts.topics import TOPICS, Topic

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.literals import ProjectionTypeType
    from types_aiobotocore_dynamodb.type_defs import (
        AttributeDefinitionTypeDef,
        GlobalSecondaryIndexTypeDef,
        KeySchemaElementTypeDef,
    )

_TABLES_TIMEOUT_S = 30.0
_TOPICS_TIMEOUT_S = 30.0
_UNSUPPORTED = "UnknownOperationException"


async def ensure_tables(endpoint: str, tables: Iterable[Table] = TABLES) -> list[str]:
    """Create the tables that are missing, wait until all can be used, and return the names of the new ones.

    Rows that are over expire where the database can do that.

    Raises:
        TimeoutError: an engine takes longer than 30 s.
    """
    created = []
    async with asyncio.timeout(_TABLES_TIMEOUT_S), open_dynamodb(endpoint, timeout_s=5) as client:
        for table in tables:
            try:
                await _create(client, table)
                created.append(table.name)
            except client.exceptions.ResourceInUseException:
                pass
        for table in tables:
            # The library's own waiter asks again after whole seconds; this takes milliseconds.
            while (await client.describe_table(TableName=table.name))["Table"]["TableStatus"] != "ACTIVE":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if table.ttl:
                await ensure_expiry(client, table)
    return created


async def ensure_expiry(client: "DynamoDBClient", table: Table) -> None:
    """Have the database remove rows that are over, unless it does already, or is an engine that never does.

    Raises:
        ClientError: the database refuses for another reason than not having it.
    """
    try:
        described = await client.describe_time_to_live(TableName=table.name)
        # Asked first, because AWS refuses to switch on what is on.
        if described["TimeToLiveDescription"].get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            await client.update_time_to_live(
                TableName=table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": table.ttl}
            )
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != _UNSUPPORTED:
            raise


async def ensure_topics(bootstrap: str, topics: Iterable[Topic] = TOPICS) -> list[str]:
    """Create the topics that are missing and return their names.

    Raises:
        Unavailable: the broker does not answer.
        ValueError: a topic exists with another number of partitions.
    """
    async with Admin(bootstrap, client_id="linkmesh-setup", timeout_s=_TOPICS_TIMEOUT_S) as admin:
        return list(await admin.ensure_topics([topic_spec(topic) for topic in topics]))


def topic_spec(topic: Topic) -> TopicSpec:
    """Return how a topic is to be on a broker of one node."""
    settings = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(topic.retention_ms)}
    return TopicSpec(topic.name, topic.partitions, settings=settings)


async def _create(client: "DynamoDBClient", table: Table) -> None:
    keys = ["pk", "sk", *(key for index in table.indexes for key in (index.pk, index.sk))]
    attributes: list[AttributeDefinitionTypeDef] = [
        {"AttributeName": key, "AttributeType": "N" if key in table.numeric else "S"} for key in dict.fromkeys(keys)
    ]
    if table.indexes:
        await client.create_table(
            TableName=table.name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_schema("pk", "sk"),
            AttributeDefinitions=attributes,
            GlobalSecondaryIndexes=[_index(index) for index in table.indexes],
        )
    else:
        await client.create_table(
            TableName=table.name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_schema("pk", "sk"),
            AttributeDefinitions=attributes,
        )


def _index(index: Index) -> "GlobalSecondaryIndexTypeDef":
    projection: ProjectionTypeType = "KEYS_ONLY" if index.projection == "KEYS_ONLY" else "ALL"
    return {
        "IndexName": index.name,
        "KeySchema": _schema(index.pk, index.sk),
        "Projection": {"ProjectionType": projection},
    }


def _schema(pk: str, sk: str) -> "list[KeySchemaElementTypeDef]":
    return [{"AttributeName": pk, "KeyType": "HASH"}, {"AttributeName": sk, "KeyType": "RANGE"}]
