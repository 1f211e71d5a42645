"""Composition: a runner on a real broker, in one call."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis.clock import Clock
from chassis.kafka.checkpointed import CheckpointedHandler, CheckpointedPolicy, CheckpointedRunner
from chassis.kafka.keyed import Handler, KeyedPolicy, KeyedRunner
from chassis.kafka.source_kafka import Subscription

__all__ = ["Subscription", "checkpointed_consumer", "keyed_consumer"]


@asynccontextmanager
async def keyed_consumer(
    subscription: Subscription,
    *,
    handler: Handler,
    clock: Clock,
    set_ready: Callable[[bool, str], None],
    policy: KeyedPolicy | None = None,
    dead_letters_per_hour_max: int = 50,
    bury: bool = True,
) -> AsyncIterator[KeyedRunner]:
    """A keyed runner with its dead letters on `<topic>-dlq`; run it as a component while the context is open.

    `bury=False` for a topic without a DLQ, whose records are only hints (`read-requests`): rejected ones are dropped
    and counted.
    """
    raise NotImplementedError
    yield


def checkpointed_consumer(
    subscription: Subscription,
    *,
    handler: CheckpointedHandler,
    clock: Clock,
    set_ready: Callable[[bool, str], None],
    policy: CheckpointedPolicy | None = None,
    assign_all: bool = False,
) -> CheckpointedRunner:
    """A checkpointed runner. `assign_all`: no group membership, this process reads every partition [B2]."""
    raise NotImplementedError
