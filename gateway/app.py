"""The gateway, put together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc

from chassis.breaker import Breaker
from chassis.clock import Clock, SystemClock
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
from gateway.adapters.creator_grpc import GrpcLinkCreator
from gateway.adapters.keys_grpc import GrpcKeys
from gateway.adapters.link_cache_redis import TIMEOUT_S as REDIS_TIMEOUT_S
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.adapters.read_requests_kafka import KafkaReadRequests
from gateway.adapters.resolver_grpc import GrpcResolver
from gateway.config import Config
from gateway.fast_creates import FastCreates
from gateway.fastpath import fast_protocol
from gateway.handlers.api import Peers, make_api
from gateway.handlers.creating import Creates
from gateway.handlers.front import Front
from gateway.handlers.pages import make_pages
from gateway.handlers.redirects import Redirects, Sources, Visitors
from gateway.loops import ClickQueue, ClickShipper
from shortener.analytics.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from shortener.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from shortener.key.v1.key_service_pb2_grpc import KeyServiceStub
from shortener.link.v1.link_service_pb2_grpc import LinkServiceStub
from shortener.webhook.v1.webhook_service_pb2_grpc import WebhookServiceStub

_NAME = "gateway"
_NOTICE_S = 0.5  # between "not ready" and the closing of the port, so that a balancer looks away first


@dataclass(frozen=True, slots=True)
class _Secrets:
    mesh: bytes  # what our processes know each other by
    visitors: bytes  # under which visitors are hashed


@dataclass(frozen=True, slots=True)
class _Sinks:
    clicks: ClickQueue
    read_requests: KafkaReadRequests


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """Opens what the gateway needs and yields its components."""
    secrets = _read_secrets(config)
    clock = SystemClock()
    readiness = Readiness()
    clicks = ClickQueue(config.click_queue_max)
    async with contextlib.AsyncExitStack() as stack:
        producer = await stack.enter_async_context(
            Producer(config.kafka, client_id=f"{_NAME}-{config.instance}", clock=clock, compression="lz4")
        )
        hints = await stack.enter_async_context(
            Producer(config.kafka, client_id=f"{_NAME}-{config.instance}-hints", clock=clock)
        )
        read_requests = KafkaReadRequests(hints, clock=clock)
        front, fast = await _open_front(config, secrets, stack, _Sinks(clicks, read_requests), clock=clock)
        yield [
            ClickShipper(
                clicks, producer, topic=ANALYTICS_EVENTS.name, partitions=ANALYTICS_EVENTS.partitions, clock=clock
            ),
            read_requests,
            PublicServer(front, fast, clicks, config, readiness),
            GrpcServer(
                host=config.host,
                port=config.grpc_port,
                services=(),
                readiness=readiness,
                mesh_secret=secrets.mesh,
                reflect=config.environment == "development",
            ),
            AdminServer(readiness, host=config.host, port=config.admin_port),
        ]


async def _open_front(
    config: Config, secrets: _Secrets, stack: contextlib.AsyncExitStack, sinks: _Sinks, *, clock: Clock
) -> tuple[Front, FastCreates]:
    """The app of the public port, and what goes past it; what they need is opened on the stack."""
    redis = await stack.enter_async_context(open_redis(config.redis, timeout_s=REDIS_TIMEOUT_S))

    async def channel(peer: str, target: str) -> grpc.aio.Channel:
        opened = open_channel(target, peer=peer, process=_NAME, mesh_secret=secrets.mesh)
        return await stack.enter_async_context(opened)

    link_service = await channel("link_service", config.link_service)
    links, keys = LinkServiceStub(link_service), KeyServiceStub(link_service)
    peers = Peers(
        links=links,
        keys=keys,
        analytics=AnalyticsServiceStub(await channel("analytics", config.analytics)),
        webhooks=WebhookServiceStub(await channel("webhook", config.webhook)),
        audit=AuditServiceStub(await channel("audit", config.audit)),
    )
    tasks = await stack.enter_async_context(asyncio.TaskGroup())  # calls; ends before what they use is closed
    resolver = GrpcResolver(links, clock=clock, tasks=tasks)
    redirects = Redirects(
        Sources(
            cache=RedisLinkCache(redis, breaker=Breaker(clock), tasks=tasks),
            resolver=resolver,
            read_requests=sinks.read_requests,
            serve_unconfirmed=config.serve_unconfirmed,
        ),
        clicks=sinks.clicks,
        visitors=Visitors(secrets.visitors, config.trusted_proxies, config.country_header.lower().encode()),
        clock=clock,
    )
    public_url = config.public_url.rstrip("/")
    verdicts = GrpcKeys(keys, clock=clock, tasks=tasks)
    creator = GrpcLinkCreator(links, clock=clock, tasks=tasks)
    creates = Creates(keys=verdicts, creator=creator, resolver=resolver, public_url=public_url, clock=clock)
    api = make_api(peers=peers, keys=verdicts, creator=creator, resolver=resolver, public_url=public_url, clock=clock)
    pages = make_pages(public_url, api.openapi(), security_contact=config.security_contact, now=clock.now())
    ratio = keep_ratio(config)
    front = Front(redirect=redirects.answer, create=creates.answer, api=api, pages=pages, keep_ratio=ratio, clock=clock)
    return front, FastCreates(creates, front, keep_ratio=ratio, clock=clock)


class PublicServer:
    """A component: the public port, and behind its last request the end of clicks."""

    def __init__(self, front: App, fast: FastCreates, clicks: ClickQueue, config: Config, readiness: Readiness) -> None:
        self._clicks = clicks
        self._server = HttpServer(
            front,
            host=config.host,
            port=config.http_port,
            notice_s=_NOTICE_S,
            protocol=fast_protocol(fast),
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


def _read_secrets(config: Config) -> _Secrets:
    """The secrets, from their files.

    Raises:
        ConfigError: one is missing, or two settings do not go together. Without the first no other process would
            answer; without the second, visitors could be guessed from their hashes.
    """
    problems = [
        f"LINKMESH_{name.upper()} is missing"
        for name in ("mesh_secret_file", "visitor_key_file")
        if getattr(config, name) is None
    ]
    if config.country_header and not config.trusted_proxies:
        problems.append("LINKMESH_COUNTRY_HEADER needs LINKMESH_TRUSTED_PROXIES: anybody could state a country")
    if problems:
        raise ConfigError(problems)
    return _Secrets(read_secret(config.mesh_secret_file), read_key(config.visitor_key_file, length=32))
