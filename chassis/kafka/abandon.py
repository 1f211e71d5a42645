"""Ending clients of aiokafka that will not end by themselves, within a second, and without a last word to the broker.

`stop()` of a producer flushes first and so never returns while a broker is away (aiokafka #1101); `stop()` of a
consumer waits for its coordination task, which may be waiting for a broker. Both leave tasks and sockets behind when
they are cancelled. Hence this file: the one place that reaches into the library's private parts (0.14).
"""
# ruff: noqa: SLF001 (the library has no public way to give up)

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

logger = logging.getLogger(__name__)
_STEP_TIMEOUT_S = 0.3


async def abandon_producer(producer: AIOKafkaProducer) -> None:
    """Kill it: its buffers fail, its sockets are reset, its tasks end. Safe to call twice, and on one never started."""
    producer._closed = True
    accumulator = producer._message_accumulator
    accumulator.fail_all(KafkaError("the producer was thrown away"))
    for batch in [*accumulator._pending_batches, *(batch for held in accumulator._batches.values() for batch in held)]:
        for waiter in (batch.future, batch._drain_waiter):
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # looked at, or the loop reports it as forgotten
    sender = producer._sender.sender_task if producer._sender is not None else None
    if sender is not None:
        sender.cancel()  # now, before the sockets fail: it must not pick up another batch
    await abandon_client(producer.client)
    if sender is not None:
        await _end([sender])


async def stop_consumer(consumer: AIOKafkaConsumer, *, timeout_s: float) -> None:
    """Leave the group in order if that works within `timeout_s`, otherwise kill. Commits nothing."""
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        logger.info("the consumer did not stop in order: %s", type(error).__name__)
        await _abandon_consumer(consumer)
    except BaseException:
        await _abandon_consumer(consumer)
        raise


def has_died(consumer: AIOKafkaConsumer) -> bool:
    """Whether one of its tasks has ended without being asked to: it then returns no records, and says nothing."""
    tasks = (
        getattr(consumer._fetcher, "_fetch_task", None),
        getattr(consumer._coordinator, "_coordination_task", None),
    )
    return any(isinstance(task, asyncio.Task) and task.done() for task in tasks)


async def _abandon_consumer(consumer: AIOKafkaConsumer) -> None:
    consumer._closed = True
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reassignment_task")
    tasks = [getattr(coordinator, name, None) for name in names]
    if fetcher is not None:
        fetcher._closed = True
        tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
    held = [task for task in tasks if isinstance(task, asyncio.Task)]
    for task in held:
        task.cancel()
    await abandon_client(consumer._client)
    await _end(held)


async def abandon_client(client: AIOKafkaClient) -> None:
    """Reset its sockets, and make everything that waits for them fail."""
    for connection in list(client._conns.values()):
        if connection._writer is not None:
            connection._writer.transport.abort()  # a closed socket would still deliver what it has buffered
    waiting = client._md_update_fut
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            await client.close()
    if waiting is not None and not waiting.done():
        waiting.set_result(False)  # whoever waits for metadata goes on, and fails


async def _end(tasks: Iterable["asyncio.Task[object]"]) -> None:
    """Cancel until they are done: some of the library's tasks use up one cancellation for their own cleaning."""
    pending = {task for task in tasks if not task.done()}
    for _ in range(3):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_STEP_TIMEOUT_S)
    if pending:
        logger.error("%d tasks of the Kafka client would not end", len(pending))
