"""Requests to warm the cache, on their way to Kafka: hints, so none is worth a wait, a retry or much memory [L4, C6].

They go by a producer of their own, which connects when it is first needed: a failed send throws a producer's whole
connection away, and no click under way should be sent again because a hint could not be sent.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from chassis.clock import Clock, uuid7
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Sender
from chassis.kafka.record import Message
from contracts.link import LinkKey
from contracts.link_codec import timestamp
from contracts.topics import READ_REQUESTS
from shortener.events.v1.read_events_pb2 import ReadRequested

SENT = Counter("read_requests_sent", "Requests to warm the cache that Kafka acknowledged")
DROPPED = Counter("read_requests_dropped", "Requests to warm the cache that were lost", ["why"])  # full, kafka, stop

_EVERY_S = 1.0  # one code is asked for once in this time by this gateway, however many visitors want it
_CODES_MAX = 1024  # asked for in that time; also the bound of what waits to be sent
_BATCH_MAX = 256
_SEND_TIMEOUT_S = 2.0
_EVENT_TYPE = ReadRequested.DESCRIPTOR.full_name
_SOURCE = "linkmesh/gateway"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    key: LinkKey
    at: datetime
    traceparent: str | None


class KafkaReadRequests:
    """A ReadRequests, and the component that sends them."""

    def __init__(self, producer: Sender, *, clock: Clock) -> None:
        self._producer = producer
        self._clock = clock
        self._asked: dict[LinkKey, float] = {}  # codes asked for in the last second, oldest first
        self._waiting: deque[_Request] = deque()
        self._changed = asyncio.Event()
        self._ending = False

    def put(self, key: LinkKey, traceparent: str | None = None) -> bool:
        """Takes a request, unless its code was asked for within the last second; False: dropped and counted."""
        now = self._clock.monotonic()
        self._forget(now - _EVERY_S)
        if key in self._asked:
            return True
        if self._ending or max(len(self._asked), len(self._waiting)) >= _CODES_MAX:
            DROPPED.labels("stop" if self._ending else "full").inc()
            return False
        self._asked[key] = now
        self._waiting.append(_Request(key, self._clock.now(), traceparent))
        self._changed.set()
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until stop; what is under way then has the rest of its two seconds."""
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send())
            await stop.wait()
            self._ending = True
            self._changed.set()
            await asyncio.wait([sending])

    def _forget(self, before: float) -> None:
        while self._asked:
            key = next(iter(self._asked))
            if self._asked[key] > before:
                return
            del self._asked[key]

    async def _send(self) -> None:
        while True:
            while not self._waiting:
                if self._ending:
                    return
                self._changed.clear()
                await self._changed.wait()
            batch = [self._waiting.popleft() for _ in range(min(_BATCH_MAX, len(self._waiting)))]
            sent = await self._producer.send_in_order([_encode(each) for each in batch], timeout_s=_SEND_TIMEOUT_S)
            SENT.inc(sent)
            DROPPED.labels("kafka").inc(len(batch) - sent)
            if sent < len(batch):
                logger.info("%d requests to warm the cache were dropped: Kafka did not take them", len(batch) - sent)
                if self._ending:  # those behind would each wait as long
                    DROPPED.labels("stop").inc(len(self._waiting))
                    return


def _encode(request: _Request) -> Message:
    """The record of a request; all of one code go to one partition."""
    headers = event_headers(
        event_id=uuid7(request.at),
        event_type=_EVENT_TYPE,
        source=_SOURCE,
        time=request.at,
        subject=request.key,
        traceparent=request.traceparent,
    )
    value = ReadRequested(link_key=request.key, at=timestamp(request.at)).SerializeToString()
    return Message(READ_REQUESTS.name, request.key.encode(), value, headers)
