"""Tables and topics are made from the contracts, once."""

import asyncio

from chassis.dynamodb import open_dynamodb
from contracts.tables import LINKS, TABLES, WEBHOOKS
from contracts.topics import TOPICS
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine
from linkmesh.local.storage import ensure_tables, ensure_topics


def test_tables_are_made_once_with_their_indexes(dynamodb_fresh: DynamoDBEngine) -> None:
    """Every table of the contract exists with its keys, indexes and expiry; a second run creates nothing."""

    async def scenario() -> None:
        assert await ensure_tables(dynamodb_fresh.endpoint) == []  # the fixture made them
        async with open_dynamodb(dynamodb_fresh.endpoint) as client:
            assert set((await client.list_tables())["TableNames"]) == {table.name for table in TABLES}
            for table in (LINKS, WEBHOOKS):
                described = (await client.describe_table(TableName=table.name))["Table"]
                names = [index["IndexName"] for index in described["GlobalSecondaryIndexes"]]
                assert names == [index.name for index in table.indexes]
            for table in TABLES:
                expiry = (await client.describe_time_to_live(TableName=table.name))["TimeToLiveDescription"]
                assert expiry.get("TimeToLiveStatus") == ("ENABLED" if table.ttl else "DISABLED")
                assert expiry.get("AttributeName", "") == table.ttl

    asyncio.run(scenario())


def test_topics_are_made_once(kafka: KafkaEngine) -> None:
    """Every topic of the contract is created on the first run and none on the second."""
    first = asyncio.run(ensure_topics(kafka.bootstrap))
    second = asyncio.run(ensure_topics(kafka.bootstrap))

    assert set(first) <= {topic.name for topic in TOPICS}  # another test of the session may have made them
    assert second == []
