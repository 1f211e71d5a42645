"""Clicks from the queue to the broker: bounded, in order, kept while it is away, drained at the end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from zlib import crc32

import pytest
from prometheus_client import REGISTRY

from chassis.kafka.record import Message
from contracts.link import LinkKey, UserId
from gateway.domain.clicks import Click
from gateway.domain.visitors import VisitorClass
from gateway.loops import ClickQueue, ClickShipper, encode
from shortener.events.v1.click_events_pb2 import VISITOR_CLASS_BOT, LinkAccessed
from tests.fakes.gateway_peers import AT
from tests.fakes.kafka_time import VirtualClock, run_virtual

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def make_click(number: int = 0, code: str = "aB3dE7x", traceparent: str | None = None) -> Click:
    """A click that can be told from others by its time."""
    return Click(
        link_key=LinkKey(code),
        user_id=UserId("alice"),
        at=AT + timedelta(milliseconds=number),
        visitor=b"v" * 16,
        visitor_class=VisitorClass.BOT,
        user_agent="agent",
        referrer="https://news.example/",
        country="DE",
        traceparent=traceparent,
    )


class ScriptedSender:
    """A Sender that acknowledges as many of each batch as the script says, all when it is at its end; None: hangs."""

    def __init__(self, *script: int | None) -> None:
        self.script = list(script)
        self.sent: list[Message] = []
        self.batches: list[int] = []

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """The leading messages that the script lets through."""
        self.batches.append(len(messages))
        acknowledged = self.script.pop(0) if self.script else len(messages)
        if acknowledged is None:
            await asyncio.sleep(timeout_s)
            acknowledged = 0
        self.sent += messages[:acknowledged]
        return acknowledged


def dropped() -> float:
    """How many clicks were dropped so far."""
    return REGISTRY.get_sample_value("clicks_dropped_total") or 0.0


def shipping(
    sender: ScriptedSender, scenario: Callable[[ClickQueue, asyncio.Event], Awaitable[None]], size_max: int = 10_000
) -> None:
    """Runs a shipper around a scenario, then lets it drain, in virtual time."""

    async def main() -> None:
        queue, stop = ClickQueue(size_max), asyncio.Event()
        shipper = ClickShipper(queue, sender, topic="clicks", partitions=20, clock=VirtualClock())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(shipper.run(stop))
            await scenario(queue, stop)
            stop.set()
            queue.close()

    run_virtual(main())


def times(messages: Sequence[Message]) -> list[int]:
    """The numbers of the clicks in these messages."""
    return [(LinkAccessed.FromString(each.value).at.ToMilliseconds() - int(AT.timestamp() * 1000)) for each in messages]


def test_a_click_as_a_record() -> None:
    """CloudEvents headers, the link's key, a partition fixed by it, every field, and no address."""
    message = encode(make_click(traceparent=TRACEPARENT), topic="clicks", partitions=20, source="s")

    headers = dict(message.headers)
    assert (message.topic, message.key, message.partition) == ("clicks", b"aB3dE7x", crc32(b"aB3dE7x") % 20)
    assert headers["ce_type"] == b"shortener.events.v1.LinkAccessed"
    assert headers["ce_subject"] == b"aB3dE7x"
    assert headers["traceparent"] == TRACEPARENT.encode()
    click = LinkAccessed.FromString(message.value)
    assert (click.link_key, click.user_id, click.country) == ("aB3dE7x", "alice", "DE")
    assert (click.visitor_class, click.visitor) == (VISITOR_CLASS_BOT, b"v" * 16)
    assert (click.user_agent, click.referrer) == ("agent", "https://news.example/")
    assert (click.spool_id, click.sequence) == ("", 0)
    assert "traceparent" not in dict(encode(make_click(), topic="clicks", partitions=20, source="s").headers)


@pytest.mark.rule("S6")
def test_a_full_queue_drops_and_counts() -> None:
    """Beyond its size a click is dropped and counted, and never waits."""
    queue = ClickQueue(2)
    before = dropped()

    assert [queue.put(make_click(number)) for number in range(4)] == [True, True, False, False]

    assert dropped() == before + 2
    assert queue.head(10) == [make_click(0), make_click(1)]
    queue.forget(1)
    assert queue.put(make_click(4))
    assert [len(queue), queue.head(1)[0]] == [2, make_click(1)]


def test_clicks_arrive_in_order_through_failures() -> None:
    """What the broker did not acknowledge is sent again, first, until it is; nothing is lost or overtaken."""
    sender = ScriptedSender(0, 2, None, 0, 1)

    async def scenario(queue: ClickQueue, _stop: asyncio.Event) -> None:
        for number in range(5):
            queue.put(make_click(number))
        while len(queue):
            await asyncio.sleep(0.1)

    shipping(sender, scenario)

    assert times(sender.sent) == [0, 1, 2, 3, 4]


def test_batches_are_bounded() -> None:
    """At most a thousand clicks are sent at once."""
    sender = ScriptedSender()

    async def scenario(queue: ClickQueue, _stop: asyncio.Event) -> None:
        for number in range(2500):
            queue.put(make_click(number))

    shipping(sender, scenario)

    assert sender.batches == [1000, 1000, 500]
    assert times(sender.sent) == list(range(2500))


def test_requests_in_flight_may_still_click_after_stop() -> None:
    """The shipper ends behind the last request, not at the signal, and sends what came in between."""
    sender = ScriptedSender()

    async def scenario(queue: ClickQueue, stop: asyncio.Event) -> None:
        stop.set()
        await asyncio.sleep(3)
        assert queue.put(make_click(7))

    shipping(sender, scenario)

    assert times(sender.sent) == [7]


@pytest.mark.rule("S6")
def test_what_cannot_be_sent_at_the_end_is_counted() -> None:
    """With the broker away the process ends in time all the same, and the clicks it takes along are counted."""
    sender = ScriptedSender(*[None] * 10)
    before = dropped()

    async def scenario(queue: ClickQueue, _stop: asyncio.Event) -> None:
        for number in range(3):
            queue.put(make_click(number))

    shipping(sender, scenario)

    assert dropped() == before + 3
    assert sender.sent == []


def test_a_closed_queue_takes_nothing() -> None:
    """A click after the end is dropped and counted, not forgotten."""
    queue = ClickQueue(2)
    queue.close()
    before = dropped()

    assert not queue.put(make_click())
    assert dropped() == before + 1
