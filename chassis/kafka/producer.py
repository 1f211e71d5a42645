"""An idempotent producer that never hangs its caller, whatever the broker does."""

from collections.abc import Sequence
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from chassis.clock import Clock
from chassis.kafka.record import Message


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
        self, bootstrap: str, *, client_id: str, clock: Clock, linger_ms: int = 5, compression: str | None = None
    ) -> None:
        raise NotImplementedError

    @property
    def state(self) -> ProducerState:
        """What is known of the broker now; costs nothing."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """True while the broker answers (state OPEN)."""
        return self.state is ProducerState.OPEN

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        """Send the messages in this order and wait for the broker; returns how many *leading* ones it acknowledged.

        Fewer than `len(messages)` is a failure: the underlying producer has been thrown away, nothing of this call is
        sent later, and the caller resumes at the first unacknowledged message (it may have arrived: at least once).
        Connecting, and waiting for a broker that is away, happen inside `timeout_s` seconds; the call returns
        within it (plus at most one second of clearing up). Calls may run side by side; order is kept inside a call.
        Raises ValueError when a message is larger than 1 MiB; nothing was sent then.
        """
        raise NotImplementedError
