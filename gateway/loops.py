"""Clicks from the spools to Kafka, at least once and in order within each spool.

At most one batch of each partition is without an answer; what the broker did not acknowledge is sent again, from the
mark on, by a producer made anew [S3]. The counter knows by the sequences what it has already [S4].
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

from chassis.backoff import Backoff
from chassis.clock import Clock, uuid7
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Sender
from chassis.kafka.record import Message
from gateway.domain.spool_format import Run
from gateway.domain.spools import Shipment, SpoolTotals
from gateway.ports import ClickSpool
from shortener.events.v1 import click_events_pb2 as pb

_SEND_TIMEOUT_S = 5.0
_DRAIN_S = 5.0  # after the last request; part of the process's grace
_RETRY = Backoff(first_s=0.1, cap_s=2.0)
# Sending costs by the record more than by the click, so the more clicks there are, the longer they wait for company: a
# lone one is sent at once, and from a few thousand a second on all wait this long.
_WAIT_PER_CLICK_S = 100e-6
_WAIT_MAX_S = 0.05
_CLICKS_TYPE = pb.LinksAccessed.DESCRIPTOR.full_name
_TOTALS_TYPE = pb.SpoolTotals.DESCRIPTOR.full_name
_SOURCE = "linkmesh/gateway"
logger = logging.getLogger(__name__)


class ClickShipper:
    """A component: sends what is in the spools until they are closed and empty, or a few seconds after they were
    closed; the rest is sent at the next start. `paused`: sends nothing."""

    def __init__(
        self,
        spool: ClickSpool,
        producer: Sender,
        *,
        topic: str,
        clock: Clock,
        source: str = _SOURCE,
        paused: bool = False,
        drain_s: float = _DRAIN_S,
    ) -> None:
        self._spool = spool
        self._producer = producer
        self._topic = topic
        self._clock = clock
        self._source = source
        self._paused = paused
        self._drain_s = drain_s

    async def run(self, stop: asyncio.Event) -> None:
        """Works until stop, then as long as requests in flight may still be recorded, then drains."""
        try:
            async with asyncio.TaskGroup() as tasks:
                shipping = tasks.create_task(self._wait() if self._paused else self._ship())
                await stop.wait()
                await self._spool.closed()
                await asyncio.wait([shipping], timeout=self._drain_s)
                shipping.cancel()
        finally:
            self._spool.finish()
        if left := self._spool.clicks():
            logger.warning("%d clicks stay in the spool, and are sent at the next start", left)

    async def _wait(self) -> None:
        logger.warning("clicks are not sent, they stay in the spool: LINKMESH_SHIP_CLICKS is false")
        await self._spool.closed()

    async def _ship(self) -> None:
        failures = 0
        late: list[int] = []  # partitions that held up what was sent behind them: they go last until all is well
        while not self._spool.empty:
            shipments = self._spool.shipments()
            if late:
                shipments = sorted(
                    shipments, key=lambda each: late.index(each.partition) if each.partition in late else -1
                )
            if not shipments:
                if not self._spool.empty:
                    await self._spool.wait()
                continue
            now = self._clock.now()
            messages = [encode(each, topic=self._topic, source=self._source, now=now) for each in shipments]
            sent = await self._producer.send_in_order(messages, timeout_s=_SEND_TIMEOUT_S)
            for shipment in shipments[:sent]:
                self._spool.acknowledge(shipment)
            if sent == len(shipments):
                failures, late = 0, []
            else:
                failures, held_up = failures + 1, shipments[sent].partition
                late = [*(number for number in late if number != held_up), held_up]
            pause_s = _pause_s(shipments, left=self._spool.clicks())
            await self._clock.sleep(_RETRY.delay_s(failures - 1) if failures else pause_s)


def encode(shipment: Shipment, *, topic: str, source: str, now: datetime) -> Message:
    """The record of a shipment: clicks, or totals."""
    content, traceparent = shipment.content, None
    match content:
        case Run():
            event_type, traceparent = _CLICKS_TYPE, content.traceparent
            head = pb.LinksAccessed(spool_id=shipment.spool_id, first_sequence=content.first_sequence)
            value = head.SerializeToString() + content.clicks  # fields of one message may stand one behind the other
        case SpoolTotals():
            event_type = _TOTALS_TYPE
            value = pb.SpoolTotals(
                spool_id=shipment.spool_id,
                partition=shipment.partition,
                recorded=content.recorded,
                dropped=content.dropped,
                closed=content.closed,
            ).SerializeToString()
    headers = event_headers(
        event_id=uuid7(now),
        event_type=event_type,
        source=source,
        time=now,
        subject=shipment.spool_id,
        traceparent=traceparent,
    )
    return Message(topic, shipment.spool_id.encode(), value, headers, partition=shipment.partition)


def _pause_s(shipments: Sequence[Shipment], *, left: int) -> float:
    """How long the next clicks wait for company; not at all while more are left than were sent at once."""
    clicks = sum(shipment.content.count for shipment in shipments if isinstance(shipment.content, Run))
    return 0.0 if left > clicks else min(_WAIT_MAX_S, clicks * _WAIT_PER_CLICK_S)
