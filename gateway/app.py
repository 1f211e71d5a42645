"""The gateway, put together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from chassis.breaker import Breaker
from chassis.clock import SystemClock
from chassis.config import ConfigError, read_key, read_secret
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from chassis.http_server import AdminServer, App, HttpServer
from chassis.kafka.producer import Producer
from chassis.lifecycle import Component
from chassis.redis import open_redis
from chassis.telemetry import keep_ratio
from contracts.topics import ANALYTICS_EVENTS
from gateway.adapters.http_protocol import LimitedHttpProtocol
from gateway.adapters.keys_grpc import GrpcKeys
from gateway.adapters.link_cache_redis import TIMEOUT_S as REDIS_TIMEOUT_S
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.adapters.resolver_grpc import GrpcResolver
from gateway.config import Config
from gateway.handlers.api import Peers, make_api
from gateway.handlers.front import Front
from gateway.handlers.pages import make_pages
from gateway.handlers.redirects import Redirects, Visitors
from gateway.loops import ClickQueue, ClickShipper
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from shortener.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from shortener.key.v1.key_service_pb2_grpc import KeyServiceStub
from shortener.link.v1.link_service_pb2_grpc import LinkServiceStub
from shortener.webhook.v1.webhook_service_pb2_grpc import WebhookServiceStub

_NAME = "gateway"
_NOTICE_S = 0.5  # between "not ready" and the closing of the port, so that a balancer looks away first


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """Opens what the gateway needs and yields its components."""
    mesh_secret, visitor_key = _secrets(config)
    clock = SystemClock()
    readiness = Readiness()
    clicks = ClickQueue(config.click_queue_max)
    async with contextlib.AsyncExitStack() as stack:
        producer = await stack.enter_async_context(
            Producer(config.kafka, client_id=f"{_NAME}-{config.instance}", clock=clock, compression="lz4")
        )
        redis = await stack.enter_async_context(open_redis(config.redis, timeout_s=REDIS_TIMEOUT_S))
        channels = {
            peer: await stack.enter_async_context(
                open_channel(target, peer=peer, process=_NAME, mesh_secret=mesh_secret)
            )
            for peer, target in _peers(config).items()
        }
        tasks = await stack.enter_async_context(asyncio.TaskGroup())  # look-ups; closed first, before what they use
        links = LinkServiceStub(channels["link_service"])
        resolver = GrpcResolver(links, clock=clock, tasks=tasks)
        redirects = Redirects(
            cache=RedisLinkCache(redis, breaker=Breaker(clock), tasks=tasks),
            resolver=resolver,
            clicks=clicks,
            visitors=Visitors(visitor_key, config.trusted_proxies, config.country_header.lower().encode()),
            clock=clock,
        )
        api = make_api(
            peers=Peers(
                links=links,
                analytics=AnalyticsServiceStub(channels["analytics"]),
                webhooks=WebhookServiceStub(channels["webhook"]),
                audit=AuditServiceStub(channels["audit"]),
            ),
            keys=GrpcKeys(KeyServiceStub(channels["link_service"]), clock=clock),
            resolver=resolver,
            public_url=config.public_url.rstrip("/"),
            clock=clock,
        )
        front = Front(
            redirect=redirects.answer,
            api=api,
            pages=make_pages(config.public_url.rstrip("/")),
            keep_ratio=keep_ratio(config),
            clock=clock,
        )
        yield [
            ClickShipper(
                clicks, producer, topic=ANALYTICS_EVENTS.name, partitions=ANALYTICS_EVENTS.partitions, clock=clock
            ),
            PublicServer(front, clicks, config, readiness),
            GrpcServer(
                host=config.host,
                port=config.grpc_port,
                services=(),
                readiness=readiness,
                mesh_secret=mesh_secret,
                reflect=config.environment == "development",
            ),
            AdminServer(readiness, host=config.host, port=config.admin_port),
        ]


class PublicServer:
    """A component: the public port, and behind its last request the end of clicks."""

    def __init__(self, front: App, clicks: ClickQueue, config: Config, readiness: Readiness) -> None:
        self._clicks = clicks
        self._server = HttpServer(
            front,
            host=config.host,
            port=config.http_port,
            notice_s=_NOTICE_S,
            protocol=LimitedHttpProtocol,
            readiness=readiness,
        )

    @property
    def port(self) -> int:
        """The port, once it runs."""
        return self._server.port

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until stop is set and the requests in flight are answered."""
        try:
            await self._server.run(stop)
        finally:
            self._clicks.close()


def _peers(config: Config) -> dict[str, str]:
    return {
        "link_service": config.link_service,
        "analytics": config.analytics,
        "webhook": config.webhook,
        "audit": config.audit,
    }


def _secrets(config: Config) -> tuple[bytes, bytes]:
    """The mesh secret and the key of the visitor hash.

    Raises:
        ConfigError: one is missing. Without the first no other process would answer; without the second, visitors
            could be guessed from their hashes.
    """
    missing = [
        f"LINKMESH_{name.upper()} is missing"
        for name in ("mesh_secret_file", "visitor_key_file")
        if getattr(config, name) is None
    ]
    if missing:
        raise ConfigError(missing)
    return read_secret(config.mesh_secret_file), read_key(config.visitor_key_file, length=32)
