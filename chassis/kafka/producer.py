"""An idempotent producer that never hangs its caller, whatever the broker does."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chassis.backoff import Backoff
from chassis.clock import Clock
from chassis.kafka.abandon import abandon_producer
from chassis.kafka.metrics import PRODUCER_OPEN
from chassis.kafka.parcels import PARCEL_FROM, hand_over, retrieve
from chassis.kafka.record import Message
from chassis.kafka.tracing import end_sends, start_sends

logger = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 1_000_000  # the broker's own limit is 1 048 588; the rest is for what a dead letter adds
_ENVELOPE_BYTES = 512  # more than a record batch of one record adds
_REQUEST_TIMEOUT_MS = 10_000
_BATCH_BYTES = 128 << 10
_BYTES_IN_FLIGHT_MAX = 16 << 20  # of all calls together; the library itself has no limit
_FLUSH_TIMEOUT_S = 2.0
_REOPEN = Backoff(first_s=0.05, cap_s=1.0)


class ProducerState(Enum):
    """What the producer knows about its broker."""

    CLOSED = "closed"  # not entered, or left
    OPENING = "opening"  # no connection yet; the next send makes one
    OPEN = "open"  # the last thing heard from the broker was good
    AWAY = "away"  # the last connection or send failed


class Sender(Protocol):
    """The port: what relay, shipper and dead letters need of a producer. `tests/fakes/kafka.py` has one in memory."""

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """As `Producer.send_in_order`."""
        ...


class Producer:
    """Idempotent, `acks=all`. An async context manager: entering does no I/O, leaving takes at most a few seconds.

    The client library's producer may never answer and never stop while a broker is away (aiokafka #1101), so every
    wait here has a deadline, and a library producer that failed once is killed, never flushed: nothing it still
    held is sent behind what the caller sends next [O1].
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        clock: Clock,
        linger_ms: int = 5,
        compression: str | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        bytes_in_flight_max: int = _BYTES_IN_FLIGHT_MAX,
    ) -> None:
        self._bytes_in_flight_max = bytes_in_flight_max
        self._bytes_in_flight = 0
        self._room = asyncio.Event()
        self._told = PRODUCER_OPEN.labels(client_id)
        self._message_bytes_max = message_bytes_max
        self._clock = clock
        self._state = ProducerState.CLOSED
        self._opening = asyncio.Lock()
        self._open: AIOKafkaProducer | None = None
        self._make: Callable[[], AIOKafkaProducer] = lambda: AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            client_id=client_id,
            enable_idempotence=True,
            acks="all",
            linger_ms=linger_ms,
            compression_type=compression,
            max_batch_size=_BATCH_BYTES,
            max_request_size=message_bytes_max + _ENVELOPE_BYTES,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            retry_backoff_ms=50,
        )

    @property
    def state(self) -> ProducerState:
        """What is known of the broker now; costs nothing."""
        return self._state

    @property
    def ready(self) -> bool:
        """True while the broker answers (state OPEN)."""
        return self._state is ProducerState.OPEN

    @property
    def bytes_in_flight(self) -> int:
        """The bytes of the messages that calls under way have handed over."""
        return self._bytes_in_flight

    async def __aenter__(self) -> Self:
        self._state = ProducerState.OPENING
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = ProducerState.CLOSED
        producer, self._open = self._open, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                await producer.flush()
        except TimeoutError:
            logger.warning("producer left with messages that were not acknowledged")
        finally:
            await abandon_producer(producer)

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """Send the messages in this order and wait for the broker; returns how many *leading* ones it acknowledged.

        Fewer than `len(messages)` is a failure: the underlying producer has been thrown away, nothing of this call is
        sent later, and the caller resumes at the first unacknowledged message (it may have arrived: at least once).
        Connecting, and waiting for a broker that is away, happen inside `timeout_s` seconds; the call returns
        within it (plus at most one second of clearing up). Calls may run side by side while their messages together
        are below `bytes_in_flight_max`; others wait, within their time. Order is kept inside a call.
        Raises ValueError when a message is larger than 1 000 000 bytes; nothing was sent then.
        """
        sizes = [_size(message) for message in messages]
        if sizes and max(sizes) > self._message_bytes_max:
            topic = messages[sizes.index(max(sizes))].topic
            raise ValueError(f"a message for {topic} is larger than {self._message_bytes_max} bytes")
        sent, spans = start_sends(messages)
        size, acknowledged = sum(sizes), 0
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            if await self._take_room(size, deadline):
                try:
                    acknowledged = await self._send(sent, deadline)
                finally:
                    self._bytes_in_flight -= size
                    self._room.set()
        finally:
            end_sends(spans, acknowledged)
        return acknowledged

    async def _take_room(self, size: int, deadline: float) -> bool:
        """Wait until these bytes fit beside those in flight, or nothing is; False: not before the deadline."""
        try:
            async with asyncio.timeout_at(deadline):
                while self._bytes_in_flight and self._bytes_in_flight + size > self._bytes_in_flight_max:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        self._bytes_in_flight += size
        return True

    async def _send(self, messages: Sequence[Message], deadline: float) -> int:
        answers: list[asyncio.Future[object]] = []
        producer: AIOKafkaProducer | None = None
        complete = False
        try:
            async with asyncio.timeout_at(deadline):
                producer = await self._current()
                if len(messages) >= PARCEL_FROM:
                    await hand_over(producer, messages, answers)
                else:
                    for message in messages:  # one by one: what was appended before a failure must be counted
                        answers.append(await _append(producer, message))  # noqa: PERF401 (see above)
                if answers:
                    await asyncio.wait(set(answers), return_when=asyncio.FIRST_EXCEPTION)
            complete = _leading(answers) == len(messages)
        except (KafkaError, OSError, TimeoutError) as error:
            logger.debug("sending failed: %s", type(error).__name__)
        finally:
            self._heard(ProducerState.OPEN if complete else ProducerState.AWAY)
            if not complete:
                await self._throw_away(producer)
        return _leading(answers)

    async def _current(self) -> AIOKafkaProducer:
        """The open producer, or a new one; tries until the caller's deadline."""
        attempt = 0
        async with self._opening:
            while self._open is None:
                if self._state is ProducerState.CLOSED:
                    raise RuntimeError("the producer is not entered, or was left")
                producer = self._make()
                started = False
                try:
                    await producer.start()
                    started = True
                except (KafkaError, OSError) as error:
                    logger.debug("no broker: %s", type(error).__name__)
                    self._heard(ProducerState.AWAY)
                finally:
                    if not started:
                        await abandon_producer(producer)
                if started:
                    self._open = producer
                else:
                    await self._clock.sleep(_REOPEN.delay_s(attempt))
                    attempt += 1
            return self._open

    def _heard(self, state: ProducerState) -> None:
        """Note what the broker's last answer, or silence, tells; say it once, not at every try of a long outage."""
        if self._state is ProducerState.CLOSED or state is self._state:
            return
        logger.log(logging.WARNING if state is ProducerState.AWAY else logging.INFO, "the broker is %s", state.value)
        self._state = state
        self._told.set(state is ProducerState.OPEN)

    async def _throw_away(self, producer: AIOKafkaProducer | None) -> None:
        if producer is None:
            return
        if self._open is producer:
            self._open = None
        await abandon_producer(producer)


async def _append(producer: AIOKafkaProducer, message: Message) -> "asyncio.Future[object]":
    """Put the message into the library's buffer; the future tells the broker's answer. Blocks while that is full.
    Where there is no such partition (the topic may be another one by now) the answer never comes.
    """
    partition = message.partition
    if partition is not None and partition not in await producer.partitions_for(message.topic):
        logger.error("%s has no partition %d", message.topic, partition)
        return asyncio.get_running_loop().create_future()  # the library would end us with an AssertionError
    answer: asyncio.Future[object] = await producer.send(
        message.topic,
        message.value,
        key=message.key,
        partition=message.partition,
        headers=list(message.headers),
    )
    answer.add_done_callback(retrieve)
    return answer


def _leading(answers: "Sequence[asyncio.Future[object]]") -> int:
    for place, answer in enumerate(answers):
        if not answer.done() or answer.cancelled() or answer.exception() is not None:
            return place
    return len(answers)


def _size(message: Message) -> int:
    headers = sum(len(name.encode()) + len(value) + 10 for name, value in message.headers)
    return len(message.key) + len(message.value) + headers
