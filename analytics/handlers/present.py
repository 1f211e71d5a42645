"""The counts of this moment: what the owner of a link's partition has in memory, and what the table has [A7].

The owner is asked first, the table second: a row that leaves memory in between is then found in the table. Without an
owner (a rebalance, a crash) the table answers alone, and `counted_until` says how old that is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from analytics.domain.book import Book
from analytics.domain.rows import RowImage
from analytics.ports import CheckpointStore, Log, OwnedRows, Peers, RowStore
from chassis.errors import DeadlineExceeded, Unavailable
from contracts.link import LinkKey
from contracts.topics import click_partition

QUERIES = Counter("analytics_queries", "Questions for counts, by whose memory was in the answer.", ("memory",))


@dataclass(frozen=True, slots=True)
class Found:
    """The versions of rows that were found, and the moment before which every click is in them."""

    owned: Sequence[RowImage]
    stored: Sequence[RowImage]
    counted_until_ms: int


class Present:
    """Reads counts. `address` is what this process is called as an owner."""

    def __init__(
        self, book: Book, *, rows: RowStore, checkpoints: CheckpointStore, log: Log, peers: Peers, address: str
    ) -> None:
        self._book = book
        self._rows = rows
        self._checkpoints = checkpoints
        self._log = log
        self._peers = peers
        self._address = address
        self._partitions = 0  # as last known, while the broker does not tell

    async def read(self, key: LinkKey, hours: range) -> Found:
        """The rows of a link in these hours. Raises Unavailable when the table cannot be read."""
        partition = click_partition(key, await self._count_partitions())
        owned = await self._ask_owner(key, partition, hours)
        if owned is None:
            # The checkpoint before the rows: what it says is in them is then in what is read.
            checkpoint = (await self._checkpoints.load([partition])).get(partition)
            until_ms = checkpoint.time_ms if checkpoint is not None else 0
            return Found([], await self._rows.read(key, hours), until_ms)
        return Found(owned.rows, await self._rows.read(key, hours), owned.counted_until_ms)

    async def _count_partitions(self) -> int:
        try:
            self._partitions = await self._log.partitions() or self._partitions
        except (Unavailable, DeadlineExceeded):
            if not self._partitions:
                raise
        if not self._partitions:
            raise Unavailable("unavailable", "The topic of clicks is not there yet.", retry_after_s=1)
        return self._partitions

    async def _ask_owner(self, key: LinkKey, partition: int, hours: range) -> OwnedRows | None:
        for fresh in (False, True):  # a second time, since who owned a moment ago may not own now
            if partition in self._book.held:
                QUERIES.labels("own").inc()
                return OwnedRows(self._book.read(key, partition, hours), self._book.counted_until_ms(partition))
            try:
                owner = await self._log.owner(partition, fresh=fresh)
                if owner is None or owner == self._address:
                    continue
                found = await self._peers.read(owner, key, partition, hours)
            except (Unavailable, DeadlineExceeded):
                break  # dead or far away: the table is what there is
            if found is not None:
                QUERIES.labels("other").inc()
                return found
        QUERIES.labels("none").inc()
        return None
