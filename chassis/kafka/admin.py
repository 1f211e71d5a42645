"""What tools and rules ask the broker about topics, offsets, lag and owners; joins no group, changes no position."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from chassis.kafka.record import Position, Record, TopicPartition


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be. `settings` are the broker's own names, such as `retention.ms`."""

    name: str
    partitions: int
    replication: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is behind on a partition. `seconds` is the age of the first record it has not finished."""

    committed: int | None  # None: the group has never committed there
    end: int
    records: int
    seconds: float


class Admin:
    """An async context manager; opens lazily. Every call ends within `timeout_s` and raises Unavailable otherwise."""

    def __init__(self, bootstrap: str, *, client_id: str, timeout_s: float = 5.0) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create what is missing; returns the names created. Existing topics stay as they are.

        Raises ValueError when an existing topic has another number of partitions than its spec.
        """
        raise NotImplementedError

    async def partitions(self, topic: str) -> Sequence[TopicPartition]:
        """The partitions of a topic, in order; empty when there is no such topic."""
        raise NotImplementedError

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Position:
        """The offset behind the newest record of each partition."""
        raise NotImplementedError

    async def committed(self, group: str) -> Position:
        """The next offsets a group has committed; partitions without a commit are left out."""
        raise NotImplementedError

    async def lag(self, group: str, topics: Sequence[str], *, now: datetime) -> Mapping[TopicPartition, Lag]:
        """Lag of a group on every partition of these topics, at broker time against `now`."""
        raise NotImplementedError

    async def record_at(self, partition: TopicPartition, offset: int) -> Record | None:
        """The first record at or behind `offset`, or None when there is none (K2: is it younger than a reservation?)."""
        raise NotImplementedError

    async def group_members(self, group: str) -> Mapping[TopicPartition, str]:
        """The `client_id` of the owner of each assigned partition; empty while the group rebalances or is empty."""
        raise NotImplementedError
