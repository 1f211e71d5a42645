"""How webhook is put together."""

import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Sequence

from chassis.api_keys import key_verifier
from chassis.auth import Verify
from chassis.clock import SystemClock, uuid7
from chassis.config import ConfigError, read_secret
from chassis.dynamodb import open_dynamodb
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from chassis.http_server import AdminServer
from chassis.kafka.consumers import Subscription, keyed_consumer
from chassis.lifecycle import Component
from contracts.topics import LINKS_EVENTS
from webhook.adapters.deliveries_dynamodb import DynamoDBDeliveryStore
from webhook.adapters.endpoints_dynamodb import DynamoDBEndpointStore
from webhook.adapters.sender_http import open_sender
from webhook.config import Config
from webhook.domain.lanes import LaneLimits
from webhook.domain.signature import SECRET_BYTES
from webhook.handlers.fan_out import FanOut
from webhook.handlers.service import WebhookServicer, webhook_service
from webhook.loops.astray import AstrayDeliveries
from webhook.loops.dispatcher import Dispatcher, DispatchPolicy

GROUP = "webhooks"


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """The components of webhook, with everything they use open."""
    if config.lease_s <= config.attempt_timeout_s:
        raise ConfigError(["LINKMESH_LEASE_S must be above LINKMESH_ATTEMPT_TIMEOUT_S"])
    clock = SystemClock()
    readiness = Readiness()
    async with contextlib.AsyncExitStack() as stack:
        dynamodb = await stack.enter_async_context(open_dynamodb(config.dynamodb, timeout_s=config.dynamodb_timeout_s))
        sender = await stack.enter_async_context(
            open_sender(trusted_hosts=config.webhook_http_hosts, timeout_s=config.attempt_timeout_s)
        )
        endpoints = DynamoDBEndpointStore(dynamodb, timeout_s=config.dynamodb_timeout_s)
        deliveries = DynamoDBDeliveryStore(dynamodb, timeout_s=config.dynamodb_timeout_s)
        dispatcher = Dispatcher(
            endpoints,
            deliveries,
            sender,
            clock=clock,
            policy=_policy(config),
            new_claim=_new_claim,
            chance=random.random,
        )
        fan_out = FanOut(
            endpoints,
            deliveries,
            dispatcher,
            clock=clock,
            new_claim=_new_claim,
            lease_s=config.lease_s,
            public_url=config.public_url,
        )
        runner = await stack.enter_async_context(
            keyed_consumer(_subscription(config), handler=fan_out, clock=clock, set_ready=readiness.declare("kafka"))
        )
        servicer = WebhookServicer(
            endpoints,
            deliveries,
            clock=clock,
            new_id=lambda: uuid7(clock.now()),
            new_entropy=lambda: secrets.token_bytes(SECRET_BYTES),
            http_hosts=config.webhook_http_hosts,
        )
        grpc = GrpcServer(
            host=config.host,
            port=config.grpc_port,
            services=[webhook_service(servicer)],
            readiness=readiness,
            mesh_secret=read_secret(config.mesh_secret_file),
            verify=await _verifier(stack, config),
            reflect=config.environment == "development",
        )
        astray = AstrayDeliveries(deliveries, clock=clock, lease_s=config.lease_s, new_claim=_new_claim)
        yield [dispatcher, astray, runner, grpc, AdminServer(readiness, host=config.host, port=config.admin_port)]


def _policy(config: Config) -> DispatchPolicy:
    return DispatchPolicy(
        lanes=LaneLimits(
            active_max=config.attempts_max,
            active_per_endpoint_max=config.attempts_per_endpoint_max,
            waiting_max=config.waiting_max,
            waiting_per_endpoint_max=config.waiting_per_endpoint_max,
        ),
        attempt_timeout_s=config.attempt_timeout_s,
        lease_s=config.lease_s,
        sweep_interval_s=config.sweep_interval_s,
        drain_s=config.drain_s,
    )


def _subscription(config: Config) -> Subscription:
    return Subscription(
        bootstrap=config.kafka,
        group=GROUP,
        topics=[LINKS_EVENTS.name],
        client_id=f"{config.host}:{config.grpc_port}",
        instance_id=f"webhook-{config.instance}",
    )


async def _verifier(stack: contextlib.AsyncExitStack, config: Config) -> Verify | None:
    """Who verifies Bearer keys; nobody if there is no link_service to ask."""
    if not config.link_service:
        return None
    secret = read_secret(config.mesh_secret_file)
    channel = await stack.enter_async_context(
        open_channel(config.link_service, peer="link_service", process="webhook", mesh_secret=secret)
    )
    return key_verifier(channel)


def _new_claim() -> str:
    return secrets.token_hex(8)
