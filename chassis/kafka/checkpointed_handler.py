"""What a checkpointed runner needs of the service it works for, and its knobs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.kafka.record import Position, Record, TopicPartition


class CheckpointedHandler(Protocol):
    """State and position in one hand. Calls never overlap. Any method may raise ServiceError of kind Unavailable,
    DeadlineExceeded or ResourceExhausted: consumption pauses, and it is called again with the same arguments
    (`revoked` is not: what it did not flush is replayed to the next owner). Any other exception ends the process.
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
        Only for partitions that `assigned` returned for. Bounded by drain_s: cancelled then.
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
    drain_s: float = 10.0  # at revoke and stop: first for the call that runs, then for `revoked`
    probe_interval_s: float = 1.0
    silence_max_s: float = 120.0  # without a poll for so long the process ends; above three calls of the handler
