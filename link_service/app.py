"""How link_service is put together."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from chassis.clock import Clock, SystemClock, uuid7
from chassis.config import ConfigError, read_key, read_secret
from chassis.dynamodb import open_dynamodb
from chassis.grpc_server import GrpcServer, Service
from chassis.health import Readiness
from chassis.http_server import AdminServer
from chassis.kafka.admin import Admin
from chassis.kafka.consumers import Subscription, keyed_consumer
from chassis.kafka.keyed import KeyedRunner
from chassis.kafka.producer import Producer
from chassis.lifecycle import Component
from chassis.redis import Redis, open_redis
from chassis.task_room import TaskRoom
from contracts.codes import CodePermutation
from contracts.topics import READ_REQUESTS
from link_service.adapters.accounts_dynamodb import DynamoDBAccounts
from link_service.adapters.cache_server_redis import RedisCacheServer
from link_service.adapters.event_log_kafka import KafkaEventLog
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.id_counter_dynamodb import DynamoDBIdCounter
from link_service.adapters.intents_redis import RedisIntents
from link_service.adapters.link_cache_redis import MUTATE_TIMEOUT_S, READ_TIMEOUT_S, RedisLinkCache
from link_service.adapters.link_keys_dynamodb import DynamoDBLinkKeys
from link_service.adapters.link_table_dynamodb import DynamoDBLinkTable
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from link_service.adapters.recent_events_kafka import KafkaRecentEvents
from link_service.adapters.recovery_redis import ANSWER_TIMEOUT_S as RECOVERY_TIMEOUT_S
from link_service.adapters.recovery_redis import RedisRecovery
from link_service.adapters.redis_line import RedisLine
from link_service.config import Config
from link_service.domain.cache_gate import CacheGate
from link_service.domain.destinations import DestinationPolicy, policy_for
from link_service.domain.ids import IdStock
from link_service.handlers import administration, keys, links, read_requests
from link_service.handlers.administration import LinkAdminHandlers
from link_service.handlers.attempts import Attempts
from link_service.handlers.changing import Changes, GeneratedCreation
from link_service.handlers.custom import CustomCreation, CustomStores
from link_service.handlers.history import History
from link_service.handlers.keys import KeyHandlers, KeyVerifier
from link_service.handlers.links import LinkFlows, LinkHandlers
from link_service.handlers.read_requests import ReadRequests
from link_service.handlers.reading import Reader
from link_service.handlers.rebuilding import Rebuilding
from link_service.handlers.table_reads import TableReads
from link_service.loops.cache_guard import CacheGuard
from link_service.loops.id_blocks import IdBlocks
from link_service.loops.recovery import Recovery
from link_service.loops.relay import Relay
from link_service.loops.settling import Settling
from shortener.key.v1 import key_service_pb2, key_service_pb2_grpc
from shortener.link.v1 import (
    link_admin_service_pb2,
    link_admin_service_pb2_grpc,
    link_service_pb2,
    link_service_pb2_grpc,
)

_KEY_BYTES = 32
_DYNAMODB_TIMEOUT_S = 2.0
_CONNECTIONS_MAX = 72  # of each way to Redis; RedisLine lets 64 commands in at once, looks at Redis itself come besides


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """The components of link_service, with everything they use open."""
    clock = SystemClock()
    codes = CodePermutation(read_key(config.code_key_file, length=_KEY_BYTES))
    pepper = read_key(config.api_key_pepper_file, length=_KEY_BYTES)
    policy = _policy(config)
    readiness = Readiness()
    stock = IdStock()
    async with AsyncExitStack() as stack:
        reads = await _redis(stack, config, READ_TIMEOUT_S)
        mutations = await _redis(stack, config, MUTATE_TIMEOUT_S)
        redirects = await _redis(stack, config, READ_TIMEOUT_S)  # its own way: a busy one must not delay redirects [L4]
        side = RedisLine(await _redis(stack, config, MUTATE_TIMEOUT_S), clock=clock, timeout_s=MUTATE_TIMEOUT_S)
        dynamodb = await stack.enter_async_context(open_dynamodb(config.dynamodb, timeout_s=_DYNAMODB_TIMEOUT_S))
        admin = await stack.enter_async_context(Admin(config.kafka, client_id=f"link-service-{config.instance}"))
        producer = await stack.enter_async_context(
            Producer(config.kafka, client_id=f"link-service-{config.instance}", clock=clock, linger_ms=0)
        )
        outbox = RedisOutbox(await _redis(stack, config, ANSWER_TIMEOUT_S), clock=clock)
        recovering = RedisRecovery(await _redis(stack, config, RECOVERY_TIMEOUT_S), clock=clock)
        recent = KafkaRecentEvents(config.kafka, admin, client_id=f"link-service-{config.instance}-recovery")
        room = await stack.enter_async_context(TaskRoom())

        table = DynamoDBLinkTable(dynamodb)
        table_reads = TableReads(table, room)
        gate = CacheGate()
        cache = RedisLinkCache(
            reads=reads,
            mutations=mutations,
            clock=clock,
            outbox_bytes_max=config.outbox_bytes_max,
            gate=gate,
            room=room,
        )
        server = RedisCacheServer(side)
        owners = Reader(cache, table_reads, clock)
        attempts = Attempts(cache, RedisIntents(side), clock)
        stores = CustomStores(cache=cache, server=server, table=table, log=KafkaEventLog(admin))
        flows = LinkFlows(
            generated=GeneratedCreation(cache, attempts, stock, codes, clock),
            custom=CustomCreation(stores, owners, attempts, room, clock),
            changes=Changes(cache, owners, attempts),
            history=History(owners, table),
            rebuilding=Rebuilding(table, cache, DynamoDBLinkKeys(dynamodb)),
            attempts=attempts,
            owners=owners,
            redirects=Reader(
                RedisLinkCache(reads=redirects, mutations=mutations, clock=clock, gate=gate, room=room),
                table_reads,
                clock,
            ),
        )
        accounts = DynamoDBAccounts(dynamodb)
        verifier = KeyVerifier(accounts, pepper, room, clock)
        grpc = GrpcServer(
            host=config.host,
            port=config.grpc_port,
            services=[
                _link_service(LinkHandlers(flows, policy, clock)),
                _link_admin_service(LinkAdminHandlers(flows.rebuilding)),
                _key_service(KeyHandlers(accounts, verifier, clock)),
            ],
            readiness=readiness,
            mesh_secret=read_secret(config.mesh_secret_file),
            verify=verifier.verify,
            reflect=config.environment == "development",
        )
        ids = IdBlocks(stock, DynamoDBIdCounter(dynamodb), server, readiness.declare("ids"))
        candidate = uuid7(clock.now())
        yield [
            CacheGuard(
                fitness=FunctionLibrary(mutations),
                set_ready=readiness.declare("redis"),
                outbox_bytes_max=config.outbox_bytes_max,
            ),
            Recovery(
                redis=recovering,
                log=recent,
                gate=gate,
                clock=clock,
                candidate=candidate,
                set_ready=readiness.declare("restored"),
                on_run=ids.tell_again,
            ),
            Settling(redis=recovering, log=recent, table=table, clock=clock, candidate=candidate),
            ids,
            await _refresher(stack, config, table_reads, room, gate, clock),
            Relay(outbox=outbox, sender=producer, clock=clock, candidate=candidate),
            grpc,
            AdminServer(readiness, host=config.host, port=config.admin_port),
        ]


def _policy(config: Config) -> DestinationPolicy:
    try:
        return policy_for(config.public_url, allow_private=config.allow_private_targets)
    except ValueError as exc:
        raise ConfigError([f"LINKMESH_PUBLIC_URL: {exc}"]) from exc


async def _refresher(
    stack: AsyncExitStack, config: Config, reads: TableReads, room: TaskRoom, gate: CacheGate, clock: Clock
) -> KeyedRunner:
    """The consumer that warms the cache, on a way to Redis of its own: its backlog must delay nobody [C6]."""
    redis = await _redis(stack, config, READ_TIMEOUT_S)
    cache = RedisLinkCache(reads=redis, mutations=redis, clock=clock, gate=gate, room=room)
    subscription = Subscription(
        bootstrap=config.kafka,
        group=READ_REQUESTS.groups[0],
        topics=[READ_REQUESTS.name],
        client_id=f"{config.host}:{config.grpc_port}",
        instance_id=f"link-service-{config.instance}",
    )
    return await stack.enter_async_context(
        keyed_consumer(
            subscription,
            handler=ReadRequests(Reader(cache, reads, clock), cache),
            clock=clock,
            set_ready=read_requests.tell,
            policy=read_requests.POLICY,
            bury=False,
        )
    )


async def _redis(stack: AsyncExitStack, config: Config, timeout_s: float) -> Redis:
    return await stack.enter_async_context(
        open_redis(config.redis, timeout_s=timeout_s, connections_max=_CONNECTIONS_MAX)
    )


def _link_service(handlers: LinkHandlers) -> Service:
    return Service(
        link_service_pb2.DESCRIPTOR.services_by_name["LinkService"],
        lambda server: link_service_pb2_grpc.add_LinkServiceServicer_to_server(handlers, server),
        links.POLICIES,
    )


def _link_admin_service(handlers: LinkAdminHandlers) -> Service:
    return Service(
        link_admin_service_pb2.DESCRIPTOR.services_by_name["LinkAdminService"],
        lambda server: link_admin_service_pb2_grpc.add_LinkAdminServiceServicer_to_server(handlers, server),
        administration.POLICIES,
    )


def _key_service(handlers: KeyHandlers) -> Service:
    return Service(
        key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
        lambda server: key_service_pb2_grpc.add_KeyServiceServicer_to_server(handlers, server),
        keys.POLICIES,
    )
