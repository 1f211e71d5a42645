"""Where a runner's records come from: the port, told apart from the client library (`source_kafka.py`)."""

from collections.abc import Collection, Sequence
from typing import Protocol

from chassis.kafka.record import Position, Record, TopicPartition


class Listener(Protocol):
    """What a source tells its runner about ownership. All `revoked` of a group end before any `assigned` begins."""

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are ours from now on. Must be quick: no heartbeat is sent while it runs."""
        ...

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These are about to be someone else's: drain and commit now. Others wait for it (bounded by the runner)."""
        ...


class Source(Protocol):
    """Records of the assigned partitions, in offset order per partition. Everything returns within its deadline."""

    async def open(self, listener: Listener) -> None:
        """Join. Raises Unavailable while the broker is away; may then be called again."""
        ...

    async def close(self) -> None:
        """Leave within a few seconds, also when the broker is away. Does not call `revoked`; commits nothing."""
        ...

    async def poll(self, *, timeout_s: float, records_max: int) -> Sequence[Record]:
        """The next records, at most `records_max`, at latest after `timeout_s` (then perhaps none).

        Must be called often, also while everything is paused. Raises Unavailable when the source has broken: the
        caller closes it and opens it again.
        """
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return nothing of these partitions until `resume`. Partitions that are not assigned are ignored."""
        ...

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Go on with these partitions. Partitions that are not assigned or not paused are ignored."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at this offset, whatever is committed. Ignored for a partition that is not assigned."""
        ...

    async def seek_to_beginning(self, partition: TopicPartition) -> None:
        """Go on at the oldest record there is. Raises Unavailable."""
        ...

    async def commit(self, position: Position) -> None:
        """Store these next offsets for the group. Raises Unavailable when they were not stored, or may not be."""
        ...

    def end_offset(self, partition: TopicPartition) -> int | None:
        """The offset behind the newest record the broker told of, or None while unknown."""
        ...

    def position(self, partition: TopicPartition) -> int | None:
        """The offset of the next record that `poll` will return, or None while unknown."""
        ...
