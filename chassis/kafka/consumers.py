"""Composition: a runner on a real broker, in one call."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from chassis.clock import Clock
from chassis.kafka.admin import Admin
from chassis.kafka.checkpointed import CheckpointedHandler, CheckpointedPolicy, CheckpointedRunner
from chassis.kafka.dead_letter_log import DeadLetterLog
from chassis.kafka.dlq import DeadLetters, NoDeadLetters, TopicDeadLetters, dead_letter_topic
from chassis.kafka.keyed import Handler, KeyedPolicy, KeyedRunner
from chassis.kafka.producer import Producer
from chassis.kafka.source_kafka import KafkaSource, Subscription
from chassis.kafka.watchdog import Watchdog, end_process

__all__ = ["Subscription", "checkpointed_consumer", "keyed_consumer", "open_dead_letters"]

_DEAD_LETTER_BYTES_MAX = 1_048_000  # what a producer may send leaves room for the headers that a dead letter adds


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
    async with AsyncExitStack() as stack:
        dead_letters: DeadLetters = NoDeadLetters()
        if bury:
            dead_letters = await _dead_letters(stack, subscription, clock, dead_letters_per_hour_max)
        yield KeyedRunner(
            source=KafkaSource(subscription, clock=clock),
            dead_letters=dead_letters,
            handler=handler,
            policy=policy or KeyedPolicy(),
            clock=clock,
            group=subscription.group,
            set_ready=set_ready,
            watchdog=Watchdog(silence_max_s=(policy or KeyedPolicy()).silence_max_s, end=end_process),
        )


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
    return CheckpointedRunner(
        source=KafkaSource(subscription, clock=clock, assign_all=assign_all),
        handler=handler,
        clock=clock,
        group=subscription.group,
        set_ready=set_ready,
        policy=policy,
        watchdog=Watchdog(silence_max_s=(policy or CheckpointedPolicy()).silence_max_s, end=end_process),
    )


@asynccontextmanager
async def open_dead_letters(
    subscription: Subscription, *, clock: Clock, per_hour_max: int = 50
) -> AsyncIterator[DeadLetters]:
    """The dead letters of a group, for the handler of a checkpointed runner, which alone knows what is content."""
    async with AsyncExitStack() as stack:
        yield await _dead_letters(stack, subscription, clock, per_hour_max)


async def _dead_letters(
    stack: AsyncExitStack, subscription: Subscription, clock: Clock, per_hour_max: int
) -> TopicDeadLetters:
    client_id = f"{subscription.group}-dlq"
    producer = await stack.enter_async_context(
        Producer(subscription.bootstrap, client_id=client_id, clock=clock, message_bytes_max=_DEAD_LETTER_BYTES_MAX)
    )
    admin = await stack.enter_async_context(Admin(subscription.bootstrap, client_id=client_id))
    topics = [dead_letter_topic(topic) for topic in subscription.topics]
    return TopicDeadLetters(
        sender=producer,
        history=DeadLetterLog(admin, topics, clock=clock),
        clock=clock,
        group=subscription.group,
        per_hour_max=per_hour_max,
    )
