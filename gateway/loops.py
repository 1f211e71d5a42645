"""Clicks on their way to Kafka: a bounded queue in memory and the loop that empties it, in order for each link.

Until there is a spool on disk, what is in the queue dies with the process, and a click may arrive twice when the
broker went away with its answer; both are what the spool [S1 to S4] is for.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from zlib import crc32

from prometheus_client import Counter, Gauge

from chassis.backoff import Backoff
from chassis.clock import Clock, uuid7
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Sender
from chassis.kafka.record import Message
from contracts.link_codec import timestamp
from gateway.domain.clicks import Click
from gateway.domain.visitors import VisitorClass
from shortener.events.v1 import click_events_pb2 as pb

RECORDED = Counter("clicks_recorded", "Clicks that were taken to be sent")
DROPPED = Counter("clicks_dropped", "Clicks that were lost: no room, or the process had to end [S6]")
QUEUED = Gauge("clicks_queued", "Clicks that the broker has not acknowledged yet")

_BATCH_MAX = 1000  # clicks of one send; about 300 kB
_SEND_TIMEOUT_S = 5.0
_DRAIN_S = 5.0  # after the last request; part of the process's grace
_RETRY = Backoff(first_s=0.1, cap_s=2.0)
_EVENT_TYPE = pb.LinkAccessed.DESCRIPTOR.full_name
_SOURCE = "linkmesh/gateway"
_CLASSES = {
    VisitorClass.HUMAN: pb.VISITOR_CLASS_HUMAN,
    VisitorClass.BOT: pb.VISITOR_CLASS_BOT,
    VisitorClass.PREFETCH: pb.VISITOR_CLASS_PREFETCH,
}
logger = logging.getLogger(__name__)


class ClickQueue:
    """A ClickSink: clicks between requests and shipper, oldest first, at most `size_max`."""

    def __init__(self, size_max: int) -> None:
        self._clicks: deque[Click] = deque()
        self._size_max = size_max
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    def put(self, click: Click) -> bool:
        """Takes a click; False: no room, it was dropped and counted."""
        if len(self._clicks) >= self._size_max or self._closed.is_set():
            DROPPED.inc()
            return False
        self._clicks.append(click)
        RECORDED.inc()
        self._changed.set()
        return True

    def close(self) -> None:
        """Nothing comes any more: the last request has been answered."""
        self._closed.set()
        self._changed.set()

    async def closed(self) -> None:
        """Returns when nothing comes any more."""
        await self._closed.wait()

    def head(self, count: int) -> Sequence[Click]:
        """The oldest clicks, at most `count`; they stay until `forget`."""
        return [self._clicks[place] for place in range(min(count, len(self._clicks)))]

    def forget(self, count: int) -> None:
        """The oldest `count` clicks are done with."""
        for _ in range(count):
            self._clicks.popleft()

    async def wait(self) -> None:
        """Returns when there is a click, or none will come."""
        while not self._clicks and not self._closed.is_set():
            self._changed.clear()
            await self._changed.wait()

    def __len__(self) -> int:
        return len(self._clicks)


class ClickShipper:
    """A component: sends clicks until the queue is closed and empty, or a few seconds after it was closed."""

    def __init__(
        self, queue: ClickQueue, producer: Sender, *, topic: str, partitions: int, clock: Clock, source: str = _SOURCE
    ) -> None:
        self._queue = queue
        self._producer = producer
        self._encode: Callable[[Click], Message] = lambda click: encode(
            click, topic=topic, partitions=partitions, source=source
        )
        self._clock = clock
        QUEUED.set_function(lambda: len(queue))

    async def run(self, stop: asyncio.Event) -> None:
        """Works until stop, then as long as requests in flight may still put clicks, then drains."""
        async with asyncio.TaskGroup() as tasks:
            shipping = tasks.create_task(self._ship())
            await stop.wait()
            await self._queue.closed()
            try:
                async with asyncio.timeout(_DRAIN_S):
                    await asyncio.wait([shipping])
            except TimeoutError:
                shipping.cancel()
        if lost := len(self._queue):
            DROPPED.inc(lost)
            logger.error("%d clicks were not sent before the end", lost)

    async def _ship(self) -> None:
        failures = 0
        while True:
            await self._queue.wait()
            batch = self._queue.head(_BATCH_MAX)
            if not batch:
                return
            messages = [self._encode(click) for click in batch]
            sent = await self._producer.send_in_order(messages, timeout_s=_SEND_TIMEOUT_S)
            self._queue.forget(sent)
            failures = 0 if sent == len(batch) else failures + 1
            if failures:
                await self._clock.sleep(_RETRY.delay_s(failures - 1))


def encode(click: Click, *, topic: str, partitions: int, source: str) -> Message:
    """The record of a click. Its partition is fixed by the key, the same in every gateway."""
    value = pb.LinkAccessed(
        link_key=click.link_key,
        user_id=click.user_id,
        at=timestamp(click.at),
        visitor=click.visitor,
        user_agent=click.user_agent,
        referrer=click.referrer,
        country=click.country,
        visitor_class=_CLASSES[click.visitor_class],
    ).SerializeToString()
    key = click.link_key.encode()
    headers = event_headers(
        event_id=uuid7(click.at),
        event_type=_EVENT_TYPE,
        source=source,
        time=click.at,
        subject=click.link_key,
        traceparent=click.traceparent,
    )
    return Message(topic, key, value, headers, partition=crc32(key) % partitions)
