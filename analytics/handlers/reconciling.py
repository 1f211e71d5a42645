"""Reconciliation [A10]: what every spool recorded, and what became of it, from the memory of the owners; of a partition
that nobody owns as its last checkpoint says.
"""

from collections.abc import Mapping
from itertools import islice

from analytics.domain.book import Book
from analytics.domain.ledger import Accounts
from analytics.domain.sequences import Spool
from analytics.handlers.messages import partition_message, spool_messages
from analytics.handlers.owners import Owners
from analytics.handlers.questions import invalid
from analytics.ports import CheckpointStore, OwnedSpools, Peers
from shortener.analytics.v1 import analytics_service_pb2 as pb

PAGE_DEFAULT, PAGE_MAX = 1000, 5000
_NOTHING = OwnedSpools({}, 0, 0, 0)


class Reconciling:
    """Pages of accounts, by partition and spool."""

    def __init__(self, book: Book, *, checkpoints: CheckpointStore, owners: Owners, peers: Peers) -> None:
        self._book = book
        self._checkpoints = checkpoints
        self._owners = owners
        self._peers = peers

    async def page(self, page_size: int, page_token: str) -> pb.ReconcileClicksResponse:
        """A page. Raises InvalidArgument; Unavailable when the database cannot be read."""
        if not 0 <= page_size <= PAGE_MAX:
            raise invalid("page_size", f"A page has at most {PAGE_MAX} spools.")
        room = page_size or PAGE_DEFAULT
        first, after = _place(page_token)
        answer = pb.ReconcileClicksResponse()
        for partition in range(first, await self._owners.partitions()):
            owned, found = await self._read(partition, after, room + 1)  # one more tells whether there are more
            messages = spool_messages(partition, found.spools)
            if messages and not room:
                answer.next_page_token = f"{partition}/"
                break
            if not after:
                answer.partitions.append(partition_message(partition, found, owned=owned))
            answer.spools.extend(messages[:room])
            if len(messages) > room:
                answer.next_page_token = f"{partition}/{messages[room - 1].spool_id}"
                break
            room, after = room - len(messages), ""
        return answer

    async def _read(self, partition: int, after: str, count: int) -> tuple[bool, OwnedSpools]:
        """The spools of a partition behind one of them, and whether its owner told them."""

        def own() -> OwnedSpools | None:
            return own_spools(self._book, partition, after, count)

        async def other(owner: str) -> OwnedSpools | None:
            return await self._peers.read_spools(owner, partition, after, count)

        found = await self._owners.ask(partition, own, other)
        if found is not None:
            return True, found
        stored = (await self._checkpoints.load([partition])).get(partition)
        return False, _NOTHING if stored is None else _cut(stored.accounts, stored.time_ms, after, count)


def own_spools(book: Book, partition: int, after: str, count: int) -> OwnedSpools | None:
    """What this process knows of a partition's spools behind one of them; None if it is not ours."""
    if partition not in book.held:
        return None
    return _cut(book.accounts(partition), book.counted_until_ms(partition), after, count)


def _cut(accounts: Accounts, counted_until_ms: int, after: str, count: int) -> OwnedSpools:
    ids = sorted(spool_id for spool_id in accounts.spools if spool_id > after)
    spools: Mapping[str, Spool] = {spool_id: accounts.spools[spool_id] for spool_id in islice(ids, count)}
    return OwnedSpools(spools, counted_until_ms, accounts.loose, accounts.forgotten_until_ms)


def _place(token: str) -> tuple[int, str]:
    """Where a page begins: the partition, and the spool before the first."""
    partition, _, spool_id = token.partition("/")
    if token and not (partition.isascii() and partition.isdigit() and len(partition) <= 6):
        raise invalid("page_token", "There is no such page.")
    return int(partition or 0), spool_id
