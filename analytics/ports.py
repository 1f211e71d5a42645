"""What analytics needs from others. Every call ends by its own deadline; Unavailable means: later, the same again."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from analytics.domain.book import Write
from analytics.domain.checkpoints import Checkpoint, LogView
from analytics.domain.clicks import AnyId
from analytics.domain.rows import AnyImage, RowImage, TopImage
from analytics.domain.sequences import Spool
from analytics.domain.watching import Told
from contracts.link import LinkKey, UserId


class RowStore(Protocol):
    """Rows of counts, durable. A version never replaces one that holds more of the log."""

    async def load(self, row_ids: Collection[AnyId]) -> Mapping[AnyId, AnyImage]:
        """Those of these rows that exist, as of a moment after the call began (consistent). Raises Unavailable."""
        ...

    async def store(self, writes: Sequence[Write]) -> Sequence[bool]:
        """Write rows, at most 25, none twice; returns for each whether it was taken. Safe to repeat.

        Not taken: the stored version holds as much or more; or the row exists although it was said not to be stored,
        or the other way round. Raises Unavailable; each row may then be written or not.
        """
        ...

    async def read(self, key: LinkKey, hours: range) -> Sequence[RowImage]:
        """The rows of a link in these hours, of all partitions, as of a moment after the call began."""
        ...

    async def read_tops(self, user_id: UserId, days: range) -> Sequence[TopImage]:
        """The rows of an account's top links of these days (since 1970, UTC), of all partitions, as of a moment after
        the call began.
        """
        ...


class CheckpointStore(Protocol):
    """Where partitions stand, durable."""

    async def load(self, partitions: Collection[int]) -> Mapping[int, Checkpoint]:
        """The newest checkpoint of each partition that has one (consistent). Raises Unavailable."""
        ...

    async def save(self, checkpoint: Checkpoint) -> bool:
        """Store it if its offset is greater than the stored one of its epoch; whether it was. Safe to repeat."""
        ...

    async def begin_epoch(self, checkpoint: Checkpoint) -> Checkpoint:
        """Make this first checkpoint of a new epoch the one to go on from, unless another owner was faster.

        Returns the one that stands. Safe to repeat: a crash in between leaves the old epoch or the new, never neither.
        """
        ...


class Log(Protocol):
    """What the broker tells of the topic of clicks and of its owners. Joins nothing. Calls raise Unavailable."""

    async def partitions(self) -> int:
        """How many partitions the topic has; may be some seconds old."""
        ...

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The offset behind the newest record of each partition."""
        ...

    async def around(self, checkpoint: Checkpoint) -> LogView:
        """What the log looks like where a checkpoint says it was folded to."""
        ...

    async def owner(self, partition: int, *, fresh: bool = False) -> str | None:
        """`host:port` of the process that owns a partition; None while nobody does. Without `fresh` up to 1 s old."""
        ...


@dataclass(frozen=True, slots=True)
class OwnedRows:
    """What the owner of a partition has in memory of a link, and up to when it has folded the partition."""

    rows: Sequence[RowImage]
    counted_until_ms: int


@dataclass(frozen=True, slots=True)
class OwnedTops:
    """What the owner of a partition has in memory of an account's top links."""

    rows: Sequence[TopImage]
    counted_until_ms: int


@dataclass(frozen=True, slots=True)
class OwnedSpools:
    """What is known of the spools of a partition, by id. `without_spool`: clicks that came without one and were
    counted; `forgotten_until_ms`: older spools that are not here were forgotten for want of room, 0: none.
    """

    spools: Mapping[str, Spool]
    counted_until_ms: int
    without_spool: int
    forgotten_until_ms: int


class Peers(Protocol):
    """Other instances of analytics. All but `watch` answer within 0.3 s, or raise Unavailable or DeadlineExceeded."""

    async def read(self, owner: str, key: LinkKey, partition: int, hours: range) -> OwnedRows | None:
        """The rows in another instance's memory; None if it does not own the partition."""
        ...

    async def read_tops(self, owner: str, user_id: UserId, days: range) -> Mapping[int, OwnedTops]:
        """The rows of an account's top links in another instance's memory, by partition that it owns."""
        ...

    async def read_spools(self, owner: str, partition: int, after: str, count: int) -> OwnedSpools | None:
        """So many spools of a partition behind one of them; None if that instance does not own the partition."""
        ...

    def watch(self, owner: str, key: LinkKey, partition: int, *, timeout_s: float) -> AsyncGenerator[Told, None]:
        """What another instance counts of a link from now on; ends when it does not own the partition any more, is
        empty if it never did. Its reader may read slowly, and closes it. Raises Unavailable and DeadlineExceeded.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What never changes of a link."""

    user_id: UserId
    created_ms: int


class Links(Protocol):
    """Whose a link is."""

    async def find(self, short_code: str, domain: str) -> LinkFacts:
        """The facts of a link, deleted ones included, seen at once after its creation.

        Raises:
            NotFound: there is no such link.
            Unavailable, DeadlineExceeded: it cannot be told.
        """
        ...
