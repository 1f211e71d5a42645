"""How writer is put together."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from chassis.clock import SystemClock
from chassis.config import read_secret
from chassis.dynamodb import open_dynamodb
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from chassis.http_server import AdminServer
from chassis.kafka.admin import Admin
from chassis.kafka.consumers import Subscription, keyed_consumer
from chassis.kafka.keyed import KeyedPolicy
from chassis.lifecycle import Component
from chassis.redis import open_redis
from contracts.topics import LINKS_EVENTS
from writer.adapters.event_topic_kafka import KafkaEventTopic
from writer.adapters.link_table_dynamodb import DynamoDBLinkTable
from writer.adapters.persisted_redis import RedisPersistedMarker
from writer.config import Config
from writer.handlers import EventWriter, decoded
from writer.loops import Replay

GROUP = "database-writer"
_REPLAY_TIMEOUT_S = 5.0  # nobody waits for a replay: it may be patient


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """The components of writer, with everything they use open."""
    readiness = Readiness()
    async with contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(config.redis, timeout_s=config.redis_timeout_s))
        dynamodb = await stack.enter_async_context(
            open_dynamodb(config.dynamodb, timeout_s=config.dynamodb_timeout_s, check_parameters=False)
        )
        table = DynamoDBLinkTable(dynamodb, timeout_s=config.dynamodb_timeout_s)
        marker = RedisPersistedMarker(redis, timeout_s=config.redis_timeout_s)
        subscription = Subscription(
            bootstrap=config.kafka,
            group=GROUP,
            topics=[LINKS_EVENTS.name],
            client_id=f"{config.host}:{config.grpc_port}",
            instance_id=f"writer-{config.instance}",
        )
        runner = await stack.enter_async_context(
            keyed_consumer(
                subscription,
                handler=EventWriter(table, marker),
                clock=SystemClock(),
                set_ready=readiness.declare("kafka"),
                policy=KeyedPolicy(batch_records_max=config.batch_records_max, lanes=config.lanes),
            )
        )
        grpc = GrpcServer(
            host=config.host,
            port=config.grpc_port,
            services=[],
            readiness=readiness,
            mesh_secret=read_secret(config.mesh_secret_file),
            reflect=config.environment == "development",
        )
        yield [runner, grpc, AdminServer(readiness, host=config.host, port=config.admin_port)]


@contextlib.asynccontextmanager
async def open_replay(*, kafka: str, redis: str, dynamodb: str) -> AsyncIterator[Replay]:
    """A replay of the topic into the tables, see writer/loops.py; joins no group. `dynamodb` empty: AWS."""
    async with contextlib.AsyncExitStack() as stack:
        marks = await stack.enter_async_context(open_redis(redis, timeout_s=_REPLAY_TIMEOUT_S))
        client = await stack.enter_async_context(
            open_dynamodb(dynamodb, timeout_s=_REPLAY_TIMEOUT_S, check_parameters=False)
        )
        admin = await stack.enter_async_context(Admin(kafka, client_id="writer-replay", timeout_s=_REPLAY_TIMEOUT_S))
        table = DynamoDBLinkTable(client, timeout_s=_REPLAY_TIMEOUT_S)
        writer = EventWriter(table, RedisPersistedMarker(marks, timeout_s=_REPLAY_TIMEOUT_S))
        topic = KafkaEventTopic(admin, LINKS_EVENTS.name)
        yield Replay(topic, table, write=writer, decode=decoded, clock=SystemClock())
