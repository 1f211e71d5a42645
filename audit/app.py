"""Composition: opens what the audit service needs, and yields its components."""

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Sequence

from audit.adapters.account_keys_dynamodb import DynamoDBAccountKeys
from audit.adapters.entry_index_dynamodb import DynamoDBEntryIndex
from audit.adapters.log_storage_files import FileLogStorage
from audit.config import Config
from audit.domain.checkpoint import Signer
from audit.domain.tiles import LogName, log_name
from audit.handlers.audit_service import AuditServicer, audit_service
from audit.handlers.log_files import LogFiles
from audit.handlers.recorder import OpenLog, Recorder
from audit.ports import LogStorage
from chassis.api_keys import key_verifier
from chassis.auth import Verify
from chassis.clock import SystemClock
from chassis.config import ConfigError, read_key, read_secret
from chassis.dynamodb import open_dynamodb
from chassis.grpc_client import open_channel
from chassis.grpc_server import GrpcServer
from chassis.health import Readiness
from chassis.http_server import AdminServer
from chassis.kafka.admin import Admin
from chassis.kafka.checkpointed import CheckpointedPolicy
from chassis.kafka.consumers import Subscription, checkpointed_consumer
from chassis.lifecycle import Component
from contracts.topics import LINKS_EVENTS

GROUP = "audit-log"
_SEED_BYTES = 32
logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def build(config: Config) -> AsyncIterator[Sequence[Component]]:
    """The components of the process; everything is closed on the way out."""
    readiness = Readiness()
    recording = readiness.declare("audit-log")
    consuming = readiness.declare("kafka")
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_dynamodb(config.dynamodb, timeout_s=config.dynamodb_timeout_s))
        storage = stack.enter_context(FileLogStorage(config.audit_dir))
        open_log = _opener(config, storage)
        index = DynamoDBEntryIndex(client, timeout_s=config.dynamodb_timeout_s)
        recorder = Recorder(
            storage=storage,
            topic=await stack.enter_async_context(Admin(config.kafka, client_id=f"audit-{config.instance}-open")),
            open_log=open_log,
            keys=DynamoDBAccountKeys(client, make_key=secrets.token_bytes, timeout_s=config.dynamodb_timeout_s),
            index=index,
            set_condition=recording,
            accept_gaps=config.audit_accept_gaps,
        )
        runner = checkpointed_consumer(
            Subscription(
                bootstrap=config.kafka,
                group=GROUP,
                topics=[LINKS_EVENTS.name],
                client_id=f"audit-{config.instance}",
            ),
            handler=recorder,
            clock=SystemClock(),
            set_ready=consuming,
            policy=CheckpointedPolicy(poll_records_max=config.audit_batch_records_max),
            assign_all=True,
        )
        servicer = AuditServicer(topic=LINKS_EVENTS.name, storage=storage, open_log=open_log, index=index)
        server = GrpcServer(
            host=config.host,
            port=config.grpc_port,
            services=[audit_service(servicer)],
            readiness=readiness,
            mesh_secret=read_secret(config.mesh_secret_file),
            verify=await _verifier(stack, config),
            reflect=config.environment == "development",
        )
        yield [runner, server, AdminServer(readiness, host=config.host, port=config.admin_port)]


async def _verifier(stack: contextlib.AsyncExitStack, config: Config) -> Verify | None:
    """Who verifies Bearer keys; nobody if there is no link_service to ask."""
    if not config.link_service:
        return None
    secret = read_secret(config.mesh_secret_file)
    channel = await stack.enter_async_context(
        open_channel(config.link_service, peer="link_service", process="audit", mesh_secret=secret)
    )
    return key_verifier(channel)


def _opener(config: Config, storage: LogStorage) -> OpenLog:
    """What opens a log by its name; tells the world each log's verifier key, once, in the process's own log.

    Raises:
        ConfigError: the key or the origin cannot be used.
    """
    seed = read_key(config.audit_signing_key_file, length=_SEED_BYTES)

    def signer(log: LogName) -> Signer:
        return Signer(f"{config.audit_origin}/audit/{log}", seed)

    try:
        names = [log_name(LINKS_EVENTS.name, partition) for partition in range(LINKS_EVENTS.partitions)]
        signers = {name: signer(name) for name in names}
    except ValueError as exc:
        raise ConfigError([f"LINKMESH_AUDIT_ORIGIN: {exc}"]) from exc
    for name in names:
        logger.info("log %s has the verifier key %s", name, signers[name].verifier)
    return lambda log: LogFiles(storage, log, signers.get(log) or signer(log))
