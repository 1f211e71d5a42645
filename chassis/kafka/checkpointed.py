"""The checkpointed runner (analytics, audit): the handler keeps the position with its own state [C4, A3, A4, B2]."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.clock import Clock
from chassis.kafka.record import Position, Record, TopicPartition
from chassis.kafka.source import Source


class CheckpointedHandler(Protocol):
    """State and position in one hand. Calls never overlap. Any method may raise ServiceError of kind Unavailable or
    DeadlineExceeded: it is called again with the same arguments after a pause. Any other exception ends the process.
    """

    async def assigned(self, partitions: Collection[TopicPartition]) -> Position:
        """Load the state of these partitions; returns where to go on. A partition that is left out (no state yet)
        starts at its oldest record. Nothing of a partition is handled before this has returned for it.
        """
        ...

    async def handle(self, records: Sequence[Record]) -> None:
        """Fold these records: in offset order per partition, partitions mixed, only assigned ones, none twice in one
        assignment unless the handler raised (then the very same records come again: apply all or nothing, or be
        idempotent by offset). Headers and bytes are the broker's own.
        """
        ...

    async def revoked(self, partitions: Collection[TopicPartition]) -> Position:
        """Flush and forget these partitions; returns what is now safely stored (next offsets), committed for lag tools.
        Bounded by the policy's drain_s; what is not flushed by then is replayed to the next owner.
        """
        ...

    async def checkpoint(self) -> Position:
        """Called about each second; returns the next offsets that are safely stored. Committed for visibility only:
        on assignment the position comes from `assigned`, never from Kafka.
        """
        ...


@dataclass(frozen=True, slots=True)
class CheckpointedPolicy:
    """The knobs of a checkpointed runner."""

    poll_records_max: int = 1000
    poll_timeout_s: float = 0.2
    checkpoint_interval_s: float = 1.0
    commit_timeout_s: float = 2.0
    handler_timeout_s: float = 30.0
    drain_s: float = 10.0
    probe_interval_s: float = 1.0


class CheckpointedRunner:
    """A component: polls always, hands records over in order, pauses while the handler's dependency is away."""

    def __init__(
        self,
        *,
        source: Source,
        handler: CheckpointedHandler,
        clock: Clock,
        group: str,
        set_ready: Callable[[bool, str], None],
        policy: CheckpointedPolicy | None = None,
    ) -> None:
        raise NotImplementedError

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then `revoked` for all that is held, commit, leave. Raises on a bug only."""
        raise NotImplementedError
