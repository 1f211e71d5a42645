"""The gateway, put together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc

from chassis.breaker import Breaker
from chassis.clock import Clock, SystemClock, epoch_ms, uuid7
from chassis.config import ConfigError, read_key, read_secret
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from chassis.http_server import AdminServer, App, HttpServer
from chassis.kafka.producer import Producer
from chassis.lifecycle import Component
from chassis.redis import open_redis
from chassis.telemetry import keep_ratio
from contracts.codes import CodePermutation
from contracts.topics import ANALYTICS_EVENTS
from gateway.adapters.click_recorder import SpoolClickRecorder
from gateway.adapters.click_spools import ClickSpools, SpoolOptions
from gateway.adapters.country_file import CountryFile
from gateway.adapters.creator_grpc import GrpcLinkCreator
from gateway.adapters.keys_grpc import GrpcKeys
from gateway.adapters.link_cache_redis import TIMEOUT_S as REDIS_TIMEOUT_S
from gateway.adapters.link_cache_redis import RedisLinkCache
from gateway.adapters.read_requests_kafka import KafkaReadRequests
from gateway.adapters.redis_pipe import RedisPipe
from gateway.adapters.resolver_grpc import GrpcResolver
from gateway.adapters.spool_stock import SMALL_BYTES
from gateway.adapters.tracking_redis import TIMEOUT_S as BEAT_TIMEOUT_S
from gateway.adapters.tracking_redis import RedisTracking
from gateway.config import Config
from gateway.domain.issued import IssuedCodes
from gateway.domain.misses import MissBudget
from gateway.domain.near_cache import TURN_S, Limits
from gateway.domain.visitors import Visitors
from gateway.fast_creates import FastCreates
from gateway.fast_lookups import FastLookups
from gateway.fastpath import FastHttpProtocol, FastRedirects, fast_protocol
from gateway.handlers.api import Peers, make_api
from gateway.handlers.creating import Creates
from gateway.handlers.front import Front
from gateway.handlers.live import LiveStreams
from gateway.handlers.lookups import Lookups, Sources
from gateway.handlers.pages import make_pages
from gateway.handlers.redirects import Redirects
from gateway.loops import ClickShipper
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
    clicks: SpoolClickRecorder
    read_requests: KafkaReadRequests
    live: LiveStreams


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """Opens what the gateway needs and yields its components."""
    secrets = _read_secrets(config)
    clock = SystemClock()
    readiness = Readiness()
    async with contextlib.AsyncExitStack() as stack:
        producer = await stack.enter_async_context(
            Producer(config.kafka, client_id=f"{_NAME}-{config.instance}", clock=clock, linger_ms=0, compression="lz4")
        )
        hints = await stack.enter_async_context(
            Producer(config.kafka, client_id=f"{_NAME}-{config.instance}-hints", clock=clock)
        )
        read_requests = KafkaReadRequests(hints, clock=clock)
        spools = await _open_spools(config, stack, clock)
        clicks = SpoolClickRecorder(
            spools.append,
            partitions=ANALYTICS_EVENTS.partitions,
            visitors=_visitors(config, secrets),
            now_ms=epoch_ms,
            country_at=_countries(config),
        )
        live = LiveStreams()
        front, protocol, tracking = await _open_front(
            config, secrets, stack, _Sinks(clicks, read_requests, live), clock=clock
        )
        yield [
            tracking,
            spools,
            ClickShipper(spools, producer, topic=ANALYTICS_EVENTS.name, clock=clock, paused=not config.ship_clicks),
            read_requests,
            live,
            PublicServer(front, protocol, spools, config, readiness),
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
) -> tuple[Front, type[FastHttpProtocol], RedisTracking]:
    """The app of the public port, what goes past it, and what keeps its links true; what they need is opened on the
    stack."""

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
    lookups, tracking = await _open_lookups(config, stack, tasks, resolver, sinks.read_requests, clock=clock)
    redirects = Redirects(
        lookups,
        clicks=sinks.clicks,
        visitors=_visitors(config, secrets),
        clock=clock,
    )
    public_url = config.public_url.rstrip("/")
    verdicts = GrpcKeys(keys, clock=clock, tasks=tasks)
    creator = GrpcLinkCreator(links, clock=clock, tasks=tasks)
    creates = Creates(keys=verdicts, creator=creator, resolver=lookups, public_url=public_url, clock=clock)
    api = make_api(
        peers=peers,
        keys=verdicts,
        creator=creator,
        resolver=lookups,
        public_url=public_url,
        clock=clock,
        streams=sinks.live,
    )
    pages = make_pages(public_url, api.openapi(), security_contact=config.security_contact, now=clock.now())
    ratio = keep_ratio(config)
    front = Front(redirect=redirects.answer, create=creates.answer, api=api, pages=pages, keep_ratio=ratio, clock=clock)
    fast = FastCreates(creates, front, clock=clock)
    misses = FastLookups(redirects, front, clock=clock)
    return front, fast_protocol(fast, FastRedirects(lookups, sinks.clicks, ratio), misses), tracking


async def _open_lookups(
    config: Config,
    stack: contextlib.AsyncExitStack,
    tasks: asyncio.TaskGroup,
    resolver: GrpcResolver,
    read_requests: KafkaReadRequests,
    *,
    clock: Clock,
) -> tuple[Lookups, RedisTracking]:
    """Look-ups, and what keeps the links true that they keep: three connections to Redis, opened when they are needed.
    One reads values, one writes beats, one listens; a slow disk of Redis holds up beats, and no reads."""
    reads = await stack.enter_async_context(open_redis(config.redis, timeout_s=REDIS_TIMEOUT_S, protocol=2))
    channel = await stack.enter_async_context(open_redis(config.redis, timeout_s=BEAT_TIMEOUT_S, protocol=2))
    trackings: list[RedisTracking] = []  # which the pipe of reads tells of its runs, and which needs the look-ups first

    def see_run(run: str) -> None:
        for tracking in trackings:
            tracking.saw_run(run)

    pipe = await stack.enter_async_context(
        RedisPipe(reads, clock=clock, tasks=tasks, timeout_s=REDIS_TIMEOUT_S, on_run=see_run)
    )
    beats = await stack.enter_async_context(
        RedisPipe(channel, clock=clock, tasks=tasks, timeout_s=BEAT_TIMEOUT_S, on_run=see_run)
    )
    codes = None if config.code_key_file is None else CodePermutation(read_key(config.code_key_file, length=32))
    sources = Sources(
        cache=RedisLinkCache(pipe, breaker=Breaker(clock)),
        resolver=resolver,
        read_requests=read_requests,
        issued=IssuedCodes(codes),
        budget=MissBudget(config.misses_per_minute),
        limits=Limits(entries_max=config.near_links_max, stale_s=config.stale_if_error_s),
        serve_unconfirmed=config.serve_unconfirmed,
    )
    lookups = Lookups(sources, tasks=tasks, clock=clock)
    name = uuid7(clock.now())
    trackings.append(RedisTracking(channel, beats, lookups, name=name, turn_s=TURN_S, clock=clock, reads=pipe))
    return lookups, trackings[0]


async def _open_spools(config: Config, stack: contextlib.AsyncExitStack, clock: Clock) -> ClickSpools:
    """The spools that clicks are recorded in.

    Raises:
        ConfigError: there is no room for them where they are to be.
    """
    options = SpoolOptions(
        root=config.spool_dir,
        partitions=ANALYTICS_EVENTS.partitions,
        bytes_max=config.spool_bytes_max,
        segment_bytes=config.spool_segment_bytes,
    )
    try:
        return await stack.enter_async_context(ClickSpools(options, clock=clock))
    except OSError as exc:
        raise ConfigError([f"LINKMESH_SPOOL_DIR: {exc}"]) from exc


def _visitors(config: Config, secrets: _Secrets) -> Visitors:
    return Visitors(secrets.visitors, config.trusted_proxies, config.country_header.lower().encode())


def _countries(config: Config) -> Callable[[str], str] | None:
    """Which country an address is in. Raises ConfigError if there is to be a file that tells, and it is none."""
    if config.geoip_file is None:
        return None
    try:
        return CountryFile.read(config.geoip_file).country_of
    except (OSError, ValueError) as exc:
        raise ConfigError([f"LINKMESH_GEOIP_FILE: {exc}"]) from exc


class PublicServer:
    """A component: the public port, and behind its last request the end of recording."""

    def __init__(
        self,
        front: App,
        protocol: type[FastHttpProtocol],
        spools: ClickSpools,
        config: Config,
        readiness: Readiness,
    ) -> None:
        self._spools = spools
        self._server = HttpServer(
            front,
            host=config.host,
            port=config.http_port,
            notice_s=_NOTICE_S,
            protocol=protocol,
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
            self._spools.close()


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
    if config.spool_segment_bytes < SMALL_BYTES:
        problems.append(f"LINKMESH_SPOOL_SEGMENT_BYTES is less than {SMALL_BYTES}")
    if problems:
        raise ConfigError(problems)
    return _Secrets(read_secret(config.mesh_secret_file), read_key(config.visitor_key_file, length=32))
