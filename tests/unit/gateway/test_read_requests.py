"""Requests to warm the cache on their way to Kafka: few, bounded, and never worth a wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from prometheus_client import REGISTRY

from chassis.kafka.record import Message
from contracts.link import LinkKey
from gateway.adapters.read_requests_kafka import KafkaReadRequests
from shortener.events.v1.read_events_pb2 import ReadRequested
from tests.fakes.kafka_time import VirtualClock, run_virtual

CODE = LinkKey("aB3dE7x")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kafka:
    """A Sender in memory. `away`: every send takes its whole time and fails."""

    def __init__(self) -> None:
        self.away = False
        self.sent: list[Message] = []
        self.sends = 0

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """The messages, after a millisecond."""
        self.sends += 1
        await asyncio.sleep(timeout_s if self.away else 0.001)
        if self.away:
            return 0
        self.sent += messages
        return len(messages)


Scenario = Callable[[KafkaReadRequests, Kafka, asyncio.Event], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """Runs a scenario, in virtual time, while requests are sent; `stop` is set at its end."""

    async def main() -> None:
        kafka, stop = Kafka(), asyncio.Event()
        requests = KafkaReadRequests(kafka, clock=VirtualClock())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(requests.run(stop))
            await scenario(requests, kafka, stop)
            stop.set()

    run_virtual(main())


def dropped(why: str) -> float:
    """How many were dropped so far."""
    return REGISTRY.get_sample_value("read_requests_dropped_total", {"why": why}) or 0.0


@pytest.mark.rule("C6")
def test_a_request_is_an_event_under_the_codes_key() -> None:
    """The record is an event like any other: envelope, key, trace of the visitor's request."""

    async def scenario(requests: KafkaReadRequests, kafka: Kafka, _stop: asyncio.Event) -> None:
        assert requests.put(CODE, TRACEPARENT)
        await asyncio.sleep(0.1)

        (message,) = kafka.sent
        headers = dict(message.headers)
        value = ReadRequested.FromString(message.value)
        assert (message.topic, message.key, value.link_key) == ("read-requests", CODE.encode(), CODE)
        assert headers["ce_type"] == b"shortener.events.v1.ReadRequested"
        assert headers["traceparent"] == TRACEPARENT.encode()
        assert value.HasField("at")

    play(scenario)


@pytest.mark.rule("C6", "L4")
def test_a_storm_on_one_code_is_one_request_a_second() -> None:
    """Three seconds of a thousand visitors a second cost Kafka three or four records; other codes are not held back."""

    async def scenario(requests: KafkaReadRequests, kafka: Kafka, _stop: asyncio.Event) -> None:
        for _ in range(3000):
            assert requests.put(CODE)
            await asyncio.sleep(0.001)
        assert requests.put(LinkKey("other-1"))
        await asyncio.sleep(0.1)

        keys = [message.key for message in kafka.sent]
        assert 3 <= keys.count(CODE.encode()) <= 4
        assert keys.count(b"other-1") == 1

    play(scenario)


@pytest.mark.rule("L4", "P5")
def test_a_flood_of_codes_is_bounded_and_counted() -> None:
    """However many codes are asked for, a second holds 1 024 of them; the rest is dropped at once."""

    async def scenario(requests: KafkaReadRequests, kafka: Kafka, _stop: asyncio.Event) -> None:
        before = dropped("full")
        taken = [requests.put(LinkKey(f"code-{number}")) for number in range(3000)]
        await asyncio.sleep(2)

        assert taken.count(True) == len(kafka.sent) == 1024
        assert dropped("full") - before == 3000 - 1024
        assert requests.put(LinkKey("later-1"))

    play(scenario)


@pytest.mark.rule("L4", "P5")
def test_without_kafka_requests_are_dropped_not_kept() -> None:
    """A broker that is away holds up nobody: what it did not take in two seconds is dropped and counted, what waits is
    bounded, and when it is back the next requests go out."""

    async def scenario(requests: KafkaReadRequests, kafka: Kafka, _stop: asyncio.Event) -> None:
        kafka.away = True
        before = dropped("kafka"), dropped("full")
        for number in range(5000):
            requests.put(LinkKey(f"code-{number}"))
            await asyncio.sleep(0.0005)
        await asyncio.sleep(20)

        assert kafka.sent == []
        assert dropped("kafka") - before[0] + dropped("full") - before[1] == 5000
        kafka.away = False
        requests.put(CODE)
        await asyncio.sleep(0.1)
        assert [message.key for message in kafka.sent] == [CODE.encode()]

    play(scenario)


@pytest.mark.rule("P5")
@pytest.mark.parametrize("away", [False, True])
def test_the_end_is_not_held_up(away: bool) -> None:
    """At stop what is waiting is sent, or given up after one try; what comes later is dropped and counted."""

    async def scenario(requests: KafkaReadRequests, kafka: Kafka, stop: asyncio.Event) -> None:
        kafka.away = away
        before = dropped("stop") + dropped("kafka")
        for number in range(600):
            requests.put(LinkKey(f"code-{number}"))
        stop.set()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3)

        assert kafka.sends == (1 if away else 3)
        assert not requests.put(CODE)
        assert len(kafka.sent) + dropped("stop") + dropped("kafka") - before == 601
        assert asyncio.get_running_loop().time() - began < 4

    play(scenario)
