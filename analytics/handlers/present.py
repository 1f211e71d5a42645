"""The counts of this moment: what the owner of a link's partition has in memory, and what the table has [A7].

The owner is asked first, the table second: a row that leaves memory in between is then found in the table. Without an
owner (a rebalance, a crash) the table answers alone, and `counted_until` says how old that is.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from analytics.domain.book import Book
from analytics.domain.rows import RowImage, TopImage
from analytics.domain.stats import merge
from analytics.handlers.owners import Owners
from analytics.ports import CheckpointStore, OwnedRows, OwnedTops, Peers, RowStore
from contracts.link import LinkKey, UserId

QUERIES = Counter("analytics_queries", "Questions for counts, by whose memory was in the answer.", ("memory",))


@dataclass(frozen=True, slots=True)
class Found:
    """The newer version of each row, and the moment before which every click is in them."""

    rows: Sequence[RowImage]
    counted_until_ms: int


@dataclass(frozen=True, slots=True)
class FoundTops:
    """The same of an account's top links."""

    rows: Sequence[TopImage]
    counted_until_ms: int


class Present:
    """Reads counts."""

    def __init__(
        self, book: Book, *, rows: RowStore, checkpoints: CheckpointStore, owners: Owners, peers: Peers
    ) -> None:
        self._book = book
        self._rows = rows
        self._checkpoints = checkpoints
        self._owners = owners
        self._peers = peers

    async def read(self, key: LinkKey, hours: range) -> Found:
        """The rows of a link in these hours. Raises Unavailable when the table cannot be read."""
        partitions = await self._owners.partitions_of(key)
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask_owner(key, partition, hours)) for partition in partitions]
        owned = [found for task in asked if (found := task.result()) is not None]
        until = [found.counted_until_ms for found in owned]
        if left := [partition for partition, task in zip(partitions, asked, strict=True) if task.result() is None]:
            # The checkpoint before the rows: what it says is in them is then in what is read.
            until.append(await self._stored_until_ms(left))
        stored = await self._rows.read(key, hours)
        return Found(merge((row for found in owned for row in found.rows), stored), min(until))

    async def read_tops(self, user_id: UserId, days: range) -> FoundTops:
        """The rows of an account's top links on these days. Its links are spread over all partitions, so that all
        owners are asked. Raises Unavailable when the table cannot be read.
        """
        partitions = range(await self._owners.partitions())

        async def ask(owner: str) -> dict[int, OwnedTops]:
            return dict(await self._peers.read_tops(owner, user_id, days))

        owned = await self._owners.ask_each(partitions, ask)
        owned |= self.own_tops(user_id, days)
        QUERIES.labels("own" if self._book.held else "other" if owned else "none").inc()
        until = [top.counted_until_ms for top in owned.values()]
        if left := [partition for partition in partitions if partition not in owned]:
            until.append(await self._stored_until_ms(left))
        stored = await self._rows.read_tops(user_id, days)
        return FoundTops(merge((row for top in owned.values() for row in top.rows), stored), min(until, default=0))

    def own_tops(self, user_id: UserId, days: range) -> dict[int, OwnedTops]:
        """What this process has in memory of an account's top links, by partition."""
        return {
            partition: OwnedTops(self._book.read_tops(user_id, partition, days), self._book.counted_until_ms(partition))
            for partition in self._book.held
        }

    async def _ask_owner(self, key: LinkKey, partition: int, hours: range) -> OwnedRows | None:
        memory = "none"

        def own() -> OwnedRows:
            nonlocal memory
            memory = "own"
            return OwnedRows(self._book.read(key, partition, hours), self._book.counted_until_ms(partition))

        async def other(owner: str) -> OwnedRows | None:
            nonlocal memory
            found = await self._peers.read(owner, key, partition, hours)
            memory = "other" if found is not None else memory
            return found

        owned = await self._owners.ask(partition, own, other)
        QUERIES.labels(memory).inc()
        return owned

    async def _stored_until_ms(self, partitions: Sequence[int]) -> int:
        """The moment before which all clicks of these partitions are in the table."""
        found = await self._checkpoints.load(partitions)
        return min((found[number].time_ms if number in found else 0 for number in partitions), default=0)
