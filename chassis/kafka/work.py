"""The working half of the keyed runner: lanes that take records from the window, handle them, and bury the hopeless."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from chassis.kafka.dlq import BURIAL_MAX_S, DeadLetter, DeadLetters
from chassis.kafka.gate import Gate
from chassis.kafka.metrics import RECORDS, count_dead_letter, declare_dead_letters
from chassis.kafka.record import Done, Outcome, Record, Rejected
from chassis.kafka.tracing import processing
from chassis.kafka.window import Step, Ticket, Window

logger = logging.getLogger(__name__)

DEPENDENCY_AWAY = (Unavailable, DeadlineExceeded, ResourceExhausted, TimeoutError, ConnectionError)
_DETAIL_CHARS_MAX = 500
_CUT_TIMEOUT_S = 1.0

Handler = Callable[[Sequence[Record]], Awaitable[Sequence[Outcome]]]
"""Handles a batch with at most one record of any key, and returns one outcome per record, in the same order.

Raises ServiceError of kind Unavailable, DeadlineExceeded or ResourceExhausted (or TimeoutError, ConnectionError) when a
dependency is away: nothing of the batch counts as an attempt [C1]. Any other exception: each record is tried again
alone at once; one that raises again counts as `Rejected(type name, retry=True)` [C2]. Must be idempotent: every record
may come again. The `traceparent` header of each record is the one of its `process` span; with a single record that
span is current.
"""


@dataclass(frozen=True, slots=True)
class KeyedPolicy:
    """The knobs of a keyed runner. The defaults suit a writer of small records."""

    batch_records_max: int = 100
    lanes: int = 4  # handler calls at the same time
    poll_records_max: int = 500
    poll_timeout_s: float = 0.2
    window_records_max: int = 10_000  # unfinished records per partition; then that partition pauses
    window_span_max: int = 50_000  # offsets from the watermark to the last one read; then that partition pauses
    bytes_max: int = 32 << 20  # unfinished bytes of all partitions; then all pause
    commit_interval_s: float = 1.0
    commit_timeout_s: float = 2.0
    drain_s: float = 2.0  # at revoke and stop: how long work in flight may take to end
    handler_timeout_s: float = 30.0  # a handler that takes longer counts as a dependency that hangs
    retry_delays_s: tuple[float, ...] = (0.0, 5.0, 30.0)
    probe_interval_s: float = 1.0  # how often a dependency that is away is asked, with one batch of one record
    burial_timeout_s: float = BURIAL_MAX_S + 1.0
    burial_retry_s: float = 1.0
    breaker_look_s: float = 5.0  # how often the dead letters of the whole group are counted
    silence_max_s: float = 60.0  # without a poll for so long the process ends; above all limits of joining together


class Work:
    """Runs the handler on what the window hands out. `lane` is run by as many tasks as there are lanes."""

    def __init__(
        self,
        *,
        window: Window,
        gate: Gate,
        handler: Handler,
        dead_letters: DeadLetters,
        policy: KeyedPolicy,
        clock: Clock,
        group: str,
    ) -> None:
        self._window = window
        self._gate = gate
        self._handler = handler
        self._dead_letters = dead_letters
        self._policy = policy
        self._clock = clock
        self._group = group
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._calls: set[asyncio.Timeout] = set()
        self._holds = 0
        self._closed = False
        declare_dead_letters(group)

    def wake(self) -> None:
        """There may be something to do: records, a due retry, a probe."""
        self._wake.set()

    def close(self) -> None:
        """The lanes end after what they are doing."""
        self._closed = True
        self._wake.set()

    async def hold(self) -> None:
        """Stop handing out and wait until nothing is in flight: `drain_s`, then what still runs is cut off, uncounted.

        Every `hold` is ended by a `let_go`.
        """
        self._holds += 1
        for limit_s in (self._policy.drain_s, _CUT_TIMEOUT_S):
            try:
                async with asyncio.timeout(limit_s):
                    await self._idle.wait()
                    return
            except TimeoutError:
                self._cut()
        logger.error("work in flight does not end, not even when it is cancelled")

    def let_go(self) -> None:
        """End of a `hold`."""
        self._holds -= 1
        self._wake.set()

    async def lane(self) -> None:
        """Take, work, repeat; ends after `close`."""
        while not self._closed:
            tickets = self._take()
            if tickets:
                await self._work(tickets)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _take(self) -> Sequence[Ticket]:
        if self._holds or self._dead_letters.tripped():
            return ()
        now = self._clock.monotonic()
        tickets = self._window.take(min(self._gate.allowance(now), self._policy.batch_records_max), now=now)
        if tickets:
            self._gate.began(now)
            self._idle.clear()
        return tickets

    async def _work(self, tickets: Sequence[Ticket]) -> None:
        hopeless = [(ticket, ticket.verdict) for ticket in tickets if ticket.verdict is not None]
        fresh = [ticket for ticket in tickets if ticket.verdict is None]
        if fresh:
            outcomes = await self._outcomes([ticket.record for ticket in fresh])
            hopeless += self._settle(fresh, outcomes)
        for ticket, verdict in hopeless:
            if self._dead_letters.tripped():  # in the middle of a batch: the others wait for a person, too [C5]
                self._window.bury_later(ticket, due=self._clock.monotonic())
            else:
                await self._bury(ticket, verdict)
        if not self._window.in_flight:
            self._idle.set()
        self._wake.set()

    async def _outcomes(self, records: Sequence[Record]) -> Sequence[Outcome | None]:
        """The handler's outcomes; None for each record that was not handled because a dependency is away."""
        try:
            return await self._call(records)
        except DEPENDENCY_AWAY as error:
            if not self._gate.away and not self._holds:
                logger.warning("a dependency is away, pausing: %s", type(error).__name__)
            return [None] * len(records)
        except Exception as error:  # whatever a handler raises is a verdict on its record [C2]
            if len(records) == 1:
                logger.warning("a record was not handled", exc_info=error)
                return [Rejected(type(error).__name__, str(error)[:_DETAIL_CHARS_MAX], retry=True)]
        alone: list[Outcome | None] = []
        for record in records:
            alone += [None] if self._holds else await self._outcomes([record])
            if alone[-1] is None:
                break  # do not wait for what is away once per record
        return alone + [None] * (len(records) - len(alone))

    async def _call(self, records: Sequence[Record]) -> Sequence[Outcome]:
        async with asyncio.timeout(self._policy.handler_timeout_s) as deadline:
            self._calls.add(deadline)
            try:
                with processing(records, self._group) as handed:
                    outcomes = await self._handler(handed)
            finally:
                self._calls.discard(deadline)
        if len(outcomes) != len(records):
            raise ValueError(f"the handler gave {len(outcomes)} outcomes for {len(records)} records")
        return outcomes

    def _settle(self, tickets: Sequence[Ticket], outcomes: Sequence[Outcome | None]) -> list[tuple[Ticket, Rejected]]:
        """Apply the outcomes; returns what is to be buried, its tickets still out."""
        now, wall_ms = self._clock.monotonic(), int(self._clock.now().timestamp() * 1000)
        if None not in outcomes:
            self._gate.answered()
        elif not self._holds:
            self._gate.failed(now)
        hopeless: list[tuple[Ticket, Rejected]] = []
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            match outcome:
                case None:
                    self._window.release(ticket)
                    self._count(ticket, "released")
                case Done():
                    self._count(ticket, "done" if self._window.complete(ticket) else "stale")
                case Rejected():
                    step = self._window.reject(ticket, outcome, now=now, wall_ms=wall_ms)
                    if step is Step.BURY:
                        hopeless.append((ticket, outcome))
                    else:
                        self._count(ticket, "retried" if step is Step.RETRY else "stale")
        return hopeless

    async def _bury(self, ticket: Ticket, verdict: Rejected) -> None:
        """Send the record to the dead letters; its offset is finished only when the broker has them."""
        wall_ms = int(self._clock.now().timestamp() * 1000)
        attempts = ticket.attempts if ticket.verdict is not None else ticket.attempts + 1
        letter = DeadLetter(ticket.record, verdict, attempts, ticket.first_failed_at_ms or wall_ms)
        try:
            async with asyncio.timeout(self._policy.burial_timeout_s) as deadline:
                self._calls.add(deadline)
                try:
                    await self._dead_letters.send(letter)
                finally:
                    self._calls.discard(deadline)
        except DEPENDENCY_AWAY:
            self._window.bury_later(ticket, due=self._clock.monotonic() + self._policy.burial_retry_s)
            return
        at = f"{ticket.record.topic}/{ticket.record.partition}/{ticket.record.offset}"
        logger.warning("dead letter of %s after %d attempts: %s", at, attempts, verdict.reason)
        count_dead_letter(self._group, verdict.reason)
        self._count(ticket, "buried" if self._window.complete(ticket) else "stale")

    def _cut(self) -> None:
        now = asyncio.get_running_loop().time()
        for deadline in self._calls:
            if not deadline.expired():
                deadline.reschedule(now)

    def _count(self, ticket: Ticket, outcome: str) -> None:
        RECORDS.labels(self._group, ticket.record.topic, outcome).inc()
