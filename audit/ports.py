"""What the audit service needs of the outside."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from audit.domain.leaf import IndexRow, KeyOwner
from audit.domain.listing import Cursor
from audit.domain.tiles import LogName, Resource
from chassis.errors import Unavailable
from chassis.kafka.record import Position, Record, TopicPartition
from contracts.link import EventId, LinkKey, UserId


class LogStoppedError(Unavailable):
    """A log cannot go on without a person; the sentence says why. The consumer waits, it never skips [B1]."""

    def __init__(self, log: LogName, sentence: str) -> None:
        super().__init__("unavailable", f"log {log}: {sentence}")
        self.log = log


class LogStorage(Protocol):
    """The files of the logs. Every method raises Unavailable when the store does not answer or has no room.

    Calls that write never overtake each other, also when their caller gave up on one before.
    """

    async def acquire(self) -> None:
        """Makes this process the only one that writes; safe to repeat. Raises Unavailable while another one is."""
        ...

    async def read(self, log: LogName, path: str) -> bytes | None:
        """The whole resource; None if there is none. A resource is never seen half written."""
        ...

    async def names(self, log: LogName, folder: str) -> Sequence[str]:
        """The names of the resources in a folder, in no order; empty if there is no such folder."""
        ...

    async def write(self, log: LogName, resources: Sequence[Resource]) -> None:
        """Stores new resources, in this order, each whole or not at all; durable once this returns.

        A resource that is there with the same content is fine. Raises LogStoppedError if one differs: nothing is ever
        overwritten.
        """
        ...

    async def replace_checkpoint(self, log: LogName, expected: bytes | None, new: bytes) -> None:
        """Puts a new checkpoint in the place of `expected` (None: of none), durably and at once.

        Safe to repeat. Raises LogStoppedError if another one stands there.
        """
        ...

    async def forget(self, log: LogName, folders: Sequence[str]) -> None:
        """Removes folders of partial forms that full ones have outlived. Best effort; what stays does no harm."""
        ...


class RecordedTopic(Protocol):
    """The topic as it is in Kafka now, asked once when the logs are opened. Every method raises Unavailable."""

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Position:
        """The offset behind the newest record of each partition."""
        ...

    async def record_at(self, partition: TopicPartition, offset: int) -> Record | None:
        """The first record at or behind `offset`; None when there is none."""
        ...


class AccountKeys(Protocol):
    """The keys that salt commitments."""

    async def of(self, owners: Collection[KeyOwner]) -> Mapping[KeyOwner, bytes]:
        """The key of each owner, 32 bytes; one that is missing is made, and durable before this returns.

        The same key for ever, also when two processes ask at once. Raises Unavailable.
        """
        ...


class EntryIndex(Protocol):
    """Where entries are found by account and by link. Reads are consistent. Every method raises Unavailable."""

    async def store(self, rows: Sequence[IndexRow]) -> None:
        """Stores rows; safe to repeat, in any order. Some may be stored when it raises."""
        ...

    async def of_account(self, user_id: UserId, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        """The next rows of an account, newest first; fewer than `limit` only at the end."""
        ...

    async def of_link(self, key: LinkKey, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        """The next rows of a link, oldest first; fewer than `limit` only at the end."""
        ...

    async def has_earlier(self, row: IndexRow, event_id: EventId) -> bool:
        """Whether the link has this event in a row before that one."""
        ...
