"""How analytics is put together."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

from analytics.adapters.checkpoints_dynamodb import DynamoDBCheckpoints
from analytics.adapters.click_rows_dynamodb import DynamoDBRowStore
from analytics.adapters.links_grpc import GrpcLinks
from analytics.adapters.log_kafka import KafkaLog
from analytics.adapters.peers_grpc import GrpcPeers
from analytics.config import Config
from analytics.domain.book import Book
from analytics.handlers.burial import Burial
from analytics.handlers.counting import ClickCounter
from analytics.handlers.owners import Owners
from analytics.handlers.present import Present
from analytics.handlers.queries import AnalyticsService, OwnedService
from analytics.handlers.reconciling import Reconciling
from analytics.handlers.watching import OwnedWatches, Watches
from analytics.loops import EndWatch, Flusher, FlushLoop
from chassis.api_keys import key_verifier
from chassis.auth import Access
from chassis.clock import SystemClock
from chassis.config import read_secret
from chassis.dynamodb import open_dynamodb
from chassis.dynamodb_statements import open_statements
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer, Service
from chassis.health import Readiness
from chassis.http_server import AdminServer
from chassis.kafka.admin import Admin
from chassis.kafka.consumers import Subscription, checkpointed_consumer, open_dead_letters
from chassis.lifecycle import Component
from contracts.scopes import OPERATE, STATS_READ
from shortener.analytics.v1 import analytics_service_pb2 as pb
from shortener.analytics.v1.analytics_service_pb2_grpc import add_AnalyticsServiceServicer_to_server
from shortener.link.v1.link_service_pb2_grpc import LinkServiceStub

_PROCESS = "analytics"


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """The components of analytics, with everything they use open."""
    clock, readiness = SystemClock(), Readiness()
    secret = read_secret(config.mesh_secret_file)
    book = Book(rows_max=config.rows_max, dirty_max=config.dirty_max)
    open_to = partial(open_channel, process=_PROCESS, mesh_secret=secret)
    async with contextlib.AsyncExitStack() as stack:
        dynamodb = await stack.enter_async_context(
            open_dynamodb(config.dynamodb, timeout_s=config.dynamodb_timeout_s, check_parameters=False)
        )
        statements = await stack.enter_async_context(
            open_statements(dynamodb, config.dynamodb, timeout_s=config.dynamodb_timeout_s)
        )
        rows = DynamoDBRowStore(dynamodb, statements, timeout_s=config.dynamodb_timeout_s)
        checkpoints = DynamoDBCheckpoints(dynamodb, timeout_s=config.dynamodb_timeout_s)
        admin = await stack.enter_async_context(
            Admin(config.kafka, client_id=f"{config.address}-admin", timeout_s=config.kafka_admin_timeout_s)
        )
        log = KafkaLog(admin, topic=config.topic, group=config.group, clock=clock)
        peers = await stack.enter_async_context(GrpcPeers(partial(open_to, peer=_PROCESS)))
        links = await stack.enter_async_context(open_to(config.link_service, peer="link_service"))

        flusher = Flusher(book, rows=rows, checkpoints=checkpoints, rows_per_s_max=config.flush_rows_per_s_max)
        subscription = _subscription(config)
        dead_letters = await stack.enter_async_context(open_dead_letters(subscription, clock=clock))
        watches = OwnedWatches(book)
        counter = ClickCounter(
            book,
            rows=rows,
            checkpoints=checkpoints,
            log=log,
            flush=flusher.flush_now,
            burial=Burial(dead_letters, group=config.group, clock=clock),
            topic=config.topic,
            group=config.group,
            tell=watches.tell,
        )
        consumer = checkpointed_consumer(
            subscription, handler=counter, clock=clock, set_ready=readiness.declare("kafka")
        )
        owners = Owners(book, log=log, address=config.address, clock=clock)
        present = Present(book, rows=rows, checkpoints=checkpoints, owners=owners, peers=peers)
        service = AnalyticsService(
            OwnedService(book, present=present, watches=watches),
            links=GrpcLinks(LinkServiceStub(links), clock=clock),
            present=present,
            watches=Watches(watches, owners=owners, peers=peers, clock=clock),
            reconciling=Reconciling(book, checkpoints=checkpoints, owners=owners, peers=peers),
            clock=clock,
        )
        server = GrpcServer(
            host=config.host,
            port=config.grpc_port,
            services=[_service(service)],
            readiness=readiness,
            mesh_secret=secret,
            verify=key_verifier(links),
            reflect=config.environment == "development",
        )
        yield [
            consumer,
            FlushLoop(book, flusher, interval_s=config.flush_every_s, clock=clock),
            EndWatch(book, log, clock=clock),
            server,
            AdminServer(readiness, host=config.host, port=config.admin_port),
        ]


def _subscription(config: Config) -> Subscription:
    return Subscription(
        bootstrap=config.kafka,
        group=config.group,
        topics=[config.topic],
        client_id=config.address,  # by which other instances find the owner of a partition
        instance_id=f"analytics-{config.instance}",
    )


def _service(servicer: AnalyticsService) -> Service:
    return Service(
        pb.DESCRIPTOR.services_by_name["AnalyticsService"],
        partial(add_AnalyticsServiceServicer_to_server, servicer),
        {
            "GetClickStats": STATS_READ,
            "ListTopLinks": STATS_READ,
            "WatchClicks": STATS_READ,
            "ReconcileClicks": OPERATE,
            "ReadOwnedRows": Access.MESH,
            "ReadOwnedTopLinks": Access.MESH,
            "ReadOwnedSpools": Access.MESH,
            "WatchOwnedClicks": Access.MESH,
        },
    )
