"""Events between Redis and Kafka: what waits in the outbox, and what Kafka has that the tables lack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from contracts.link import LinkKey


class EventLog(Protocol):
    """What Kafka knows of link events that are not in the table yet."""

    async def oldest_unwritten(self, key: LinkKey) -> datetime | None:
        """When, by the broker's clock, the first record arrived that the writer has not committed, in this link's
        partition; None: there is none."""
        ...


Position = NewType("Position", tuple[int, int])  # ms of Redis' clock when the entry was added, sequence number


@dataclass(frozen=True, slots=True)
class QueuedEntry:
    """An entry of one of the outbox streams, as it stands there; `position` orders the entries of a bucket."""

    bucket: int
    position: Position
    data: bytes


class Outbox(Protocol):
    """The events that are not known to be in Kafka [O1]. Reading takes nothing away.

    Raises (every call):
        Unavailable: Redis is away or hangs.
    """

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the one leader lease; whether it is the candidate's now."""
        ...

    async def resign(self, candidate: str) -> None:
        """Gives the leader lease back if it is the candidate's."""
        ...

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        """The oldest entries of each bucket, in order per bucket, bounded in number; waits up to wait_s (< 1 s) for a
        first one, and may then be empty."""
        ...

    async def trim(self, through: Mapping[int, Position]) -> None:
        """Removes, per bucket, every entry up to and including this position; nothing behind it. Positions are those of
        the last `read` of this very object: if Redis is at another run since, nothing is removed."""
        ...

    async def set_aside(self, entry: QueuedEntry) -> None:
        """Keeps an entry that cannot be read in a stream for a person, where it survives `trim`."""
        ...

    async def depth(self) -> "OutboxDepth":
        """How much is waiting."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """What waits in all buckets together."""

    entries: int
    size_bytes: int  # Redis' own estimate of its memory
    oldest_age_s: float  # of the oldest entry, by Redis' clock; 0 when empty
