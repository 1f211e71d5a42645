"""Real engines for tests. Ask for a fixture by name; nothing else is needed (tests/conftest.py brings them in).

Shared by the whole pytest session, started at their first use (take names of your own, leave others' alone):

- `kafka`     `.bootstrap` ("127.0.0.1:port"), `.pid`. Kafka 4.4; topics are not created by themselves:
- `kafka_topics`  `kafka_topics("clicks", partitions=4)` creates a topic under a name no other test has and returns it;
              topic settings by `kafka_topics("x", config={"message.timestamp.type": "LogAppendTime"})`.
- `valkey`    `.url` ("redis://127.0.0.1:port/0"), appendfsync always, noeviction.
- `dynamodb`  `.endpoint` ("http://127.0.0.1:port"), with all tables of contracts/tables.py (so has `dynamodb_fresh`):
              open a client by `chassis.dynamodb.open_dynamodb(dynamodb.endpoint)`, use keys no other test has.
- `zipkin`    `.url`.

For one test alone, empty, free to be killed; `kill()`, `pause()`, `resume()` act at once, `asyncio.run(x.start())`
(or `await x.start()`) brings a killed one back on its data, and `await x.stop()` ends it well:

- `valkey_fresh` (0.1 s), `dynamodb_fresh` (0.1 s), `kafka_fresh` (2 s, more on a busy machine).

All of them are `linkmesh.local.engines` classes with ports nobody else on the machine gets and folders that pytest
removes. Fixtures are synchronous; a test runs its own coroutine by `asyncio.run(...)`.
"""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from linkmesh.local.engines import DynamoDBEngine, Engine, KafkaEngine, ValkeyEngine, ZipkinEngine
from linkmesh.local.ports import free_port
from linkmesh.local.storage import ensure_tables

AnyEngine = TypeVar("AnyEngine", bound=Engine)
_numbers = itertools.count(1)


class MakeTopic(Protocol):
    """Creates a topic and returns its name."""

    def __call__(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str: ...


@contextmanager
def running(engine: AnyEngine) -> Iterator[AnyEngine]:
    """Start an engine, and see to it that it is gone afterwards."""
    asyncio.run(engine.start())
    try:
        yield engine
    finally:
        asyncio.run(engine.stop())


def state_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a new folder for an engine's data, log and pid file."""
    return factory.mktemp(name)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """The session's broker."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        yield engine


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyEngine]:
    """The session's Redis."""
    with running(ValkeyEngine(state_folder(tmp_path_factory, "valkey"), free_port())) as engine:
        yield engine


@pytest.fixture(scope="session")
def dynamodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DynamoDBEngine]:
    """The session's DynamoDB."""
    with running(DynamoDBEngine(state_folder(tmp_path_factory, "dynamodb"), free_port())) as engine:
        asyncio.run(ensure_tables(engine.endpoint))
        yield engine


@pytest.fixture(scope="session")
def zipkin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipkinEngine]:
    """The session's trace store."""
    with running(ZipkinEngine(state_folder(tmp_path_factory, "zipkin"), free_port())) as engine:
        yield engine


@pytest.fixture
def kafka_fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """A broker for this test alone."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        yield engine


@pytest.fixture
def valkey_fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyEngine]:
    """A Redis for this test alone."""
    with running(ValkeyEngine(state_folder(tmp_path_factory, "valkey"), free_port())) as engine:
        yield engine


@pytest.fixture
def dynamodb_fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DynamoDBEngine]:
    """A DynamoDB for this test alone."""
    with running(DynamoDBEngine(state_folder(tmp_path_factory, "dynamodb"), free_port())) as engine:
        asyncio.run(ensure_tables(engine.endpoint))
        yield engine


@pytest.fixture
def kafka_topics(kafka: KafkaEngine) -> MakeTopic:
    """A function that creates a topic of this test's own on the session's broker."""

    def make(name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        unique = f"{name}-{next(_numbers)}"
        asyncio.run(create_topic(kafka.bootstrap, unique, partitions, config or {}))
        return unique

    return make


async def create_topic(bootstrap: str, name: str, partitions: int, config: Mapping[str, str]) -> None:
    """Create a topic and wait until the broker took it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="tests")
    async with asyncio.timeout(30):
        await admin.start()
        try:
            answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(config))])
            refused = [error for error in answer.topic_errors if error[1] != 0]
            assert not refused, f"the broker refused the topic: {refused}"
        finally:
            await admin.close()
