"""A process of this test alone, on Redis and DynamoDB of this test alone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from linkmesh.local.engines import DynamoDBEngine, KafkaEngine, ValkeyEngine
from linkmesh.local.storage import ensure_topics
from tests.integration.link_service.running import Engines, Play, Scenario, gateway, process


@pytest.fixture
def engines(valkey_fresh: ValkeyEngine, dynamodb_fresh: DynamoDBEngine, kafka: KafkaEngine) -> Engines:
    """Redis and DynamoDB of this test alone, the session's broker with the product's topics. What other tests made is
    in its log, and the new Redis is told of it [R8]: use codes that no other test has."""
    asyncio.run(ensure_topics(kafka.bootstrap))
    return Engines(valkey_fresh, dynamodb_fresh, kafka.bootstrap)


@pytest.fixture
def play(engines: Engines, tmp_path: Path) -> Iterator[Play]:
    """Runs a scenario against a process that is ready."""
    with process(engines, tmp_path) as service:

        def run(scenario: Scenario) -> None:
            async def main() -> None:
                await service.start()
                async with gateway(service) as caller:
                    await scenario(service, caller)

            asyncio.run(main())

        yield run
