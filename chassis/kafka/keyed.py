"""The keyed runner (writer, webhook, cache refresher): many keys in flight, each key in order [C1-C4]."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from chassis.clock import Clock
from chassis.kafka.dlq import DeadLetters
from chassis.kafka.record import Outcome, Record
from chassis.kafka.source import Source

Handler = Callable[[Sequence[Record]], Awaitable[Sequence[Outcome]]]
"""Handles a batch with at most one record of any key, and returns one outcome per record, in the same order.

Raises ServiceError of kind Unavailable or DeadlineExceeded (or TimeoutError, ConnectionError) when a dependency is
away: nothing of the batch counts as an attempt [C1]. Any other exception: each record is tried again alone at once;
one that raises again counts as `Rejected(type name, retry=True)` [C2]. Must be idempotent: every record may come again.
The `traceparent` header of each record is the one of its `process` span; with a single record that span is current.
"""

SetReady = Callable[[bool, str], None]


@dataclass(frozen=True, slots=True)
class KeyedPolicy:
    """The knobs of a keyed runner. The defaults suit a writer of small records."""

    batch_records_max: int = 100
    lanes: int = 4  # handler calls at the same time
    poll_records_max: int = 500
    poll_timeout_s: float = 0.2
    window_records_max: int = 10_000  # unfinished records per partition; then that partition pauses
    bytes_max: int = 32 << 20  # unfinished bytes of all partitions; then all pause
    commit_interval_s: float = 1.0
    commit_timeout_s: float = 2.0
    drain_s: float = 2.0  # at revoke and stop: how long work in flight may take to end
    handler_timeout_s: float = 30.0  # a handler that takes longer counts as a dependency that hangs
    retry_delays_s: tuple[float, ...] = (0.0, 5.0, 30.0)
    probe_interval_s: float = 1.0  # how often a dependency that is away is asked, with one batch of one record
    burial_retry_s: float = 1.0
    tripped_check_s: float = 5.0


class KeyedRunner:
    """A component: consumes until `stop`, then drains, commits and leaves.

    Promises: per key the handler sees records in order and never two at a time; an offset is committed only when every
    record before it is finished, which for a dead letter means acknowledged by the broker; no result of work begun
    before a rebalance is applied after it; a record in retry (at once, 5 s, 30 s) holds back its own key only.
    """

    def __init__(
        self,
        *,
        source: Source,
        dead_letters: DeadLetters,
        handler: Handler,
        policy: KeyedPolicy,
        clock: Clock,
        group: str,
        set_ready: SetReady,
    ) -> None:
        raise NotImplementedError

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set. Survives a broker that is away; raises only on a bug."""
        raise NotImplementedError
