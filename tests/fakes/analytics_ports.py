"""What analytics needs, in memory. Calls take as long as `pace` says, so that virtual time can interleave them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from analytics.domain.book import Write
from analytics.domain.checkpoints import Checkpoint, LogView
from analytics.domain.clicks import AnyId, RowId, TopId
from analytics.domain.rows import AnyImage, RowImage, TopImage
from analytics.domain.watching import Told
from analytics.ports import LinkFacts, OwnedRows, OwnedSpools, OwnedTops
from chassis.errors import NotFound, ServiceError, Unavailable
from chassis.kafka.dlq import DeadLetter
from contracts.link import LinkKey, UserId

Pace = Callable[[], Awaitable[None]]


async def at_once() -> None:
    """No time at all."""


class _Away:
    """`away`: every call raises Unavailable. `failure`: what every call raises."""

    def __init__(self, pace: Pace = at_once) -> None:
        self.away = False
        self.failure: ServiceError | None = None
        self._pace = pace

    async def _reach(self) -> None:
        await self._pace()
        if self.away:
            raise Unavailable("unavailable", "away")
        if self.failure is not None:
            raise self.failure


class FakeRowStore(_Away):
    """RowStore. A write takes effect somewhere between its call and its answer."""

    def __init__(self, pace: Pace = at_once) -> None:
        super().__init__(pace)
        self.rows: dict[AnyId, AnyImage] = {}
        self.loads = 0

    @property
    def links(self) -> Mapping[RowId, RowImage]:
        """The rows of links."""
        return {row.id: row for row in self.rows.values() if isinstance(row, RowImage)}

    @property
    def tops(self) -> Mapping[TopId, TopImage]:
        """The rows of accounts' top links."""
        return {row.id: row for row in self.rows.values() if isinstance(row, TopImage)}

    async def load(self, row_ids: Collection[AnyId]) -> Mapping[AnyId, AnyImage]:
        await self._reach()
        self.loads += 1
        found = {row_id: self.rows[row_id] for row_id in row_ids if row_id in self.rows}
        await self._reach()
        return found

    async def store(self, writes: Sequence[Write]) -> Sequence[bool]:
        assert len(writes) <= 25
        assert len({write.image.id for write in writes}) == len(writes)
        await self._reach()
        taken = [self._store(write) for write in writes]
        await self._reach()
        return taken

    def _store(self, write: Write) -> bool:
        stored = self.rows.get(write.image.id)
        if write.stored != (stored is not None):
            return False
        if stored is not None and stored.applied >= write.image.applied:
            return False
        self.rows[write.image.id] = write.image
        return True

    async def read(self, key: LinkKey, hours: range) -> Sequence[RowImage]:
        await self._reach()
        return [row for row in self.links.values() if row.id.key == key and row.id.hour in hours]

    async def read_tops(self, user_id: UserId, days: range) -> Sequence[TopImage]:
        await self._reach()
        return [row for row in self.tops.values() if row.id.user_id == user_id and row.id.day in days]


class FakeCheckpoints(_Away):
    """CheckpointStore."""

    def __init__(self, pace: Pace = at_once) -> None:
        super().__init__(pace)
        self.checkpoints: dict[tuple[int, int], Checkpoint] = {}  # by epoch and partition
        self.epochs: dict[int, int] = {}

    async def load(self, partitions: Collection[int]) -> Mapping[int, Checkpoint]:
        await self._reach()
        return {
            partition: self.checkpoints[place]
            for partition in partitions
            if (place := (self.epochs.get(partition, 1), partition)) in self.checkpoints
        }

    async def save(self, checkpoint: Checkpoint) -> bool:
        await self._reach()
        stored = self.checkpoints.get((checkpoint.epoch, checkpoint.partition))
        if stored is not None and stored.offset >= checkpoint.offset:
            return False
        self.checkpoints[checkpoint.epoch, checkpoint.partition] = checkpoint
        await self._reach()
        return True

    async def begin_epoch(self, checkpoint: Checkpoint) -> Checkpoint:
        await self._reach()
        partition = checkpoint.partition
        self.checkpoints.setdefault((checkpoint.epoch, partition), checkpoint)
        self.epochs[partition] = max(self.epochs.get(partition, 1), checkpoint.epoch)
        return (await self.load([partition]))[partition]


class FakeLog(_Away):
    """Log: times of records by partition and offset, and owners by partition."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__()
        self.times: dict[int, dict[int, int]] = {partition: {} for partition in range(partitions)}
        self.owners: dict[int, str] = {}
        self.asked_fresh = 0
        self.hangs = False  # no call ever ends

    async def _reach(self) -> None:
        if self.hangs:
            await asyncio.sleep(1e9)
        await super()._reach()

    async def partitions(self) -> int:
        await self._reach()
        return len(self.times)

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        await self._reach()
        return {partition: max(self.times[partition], default=-1) + 1 for partition in partitions}

    async def around(self, checkpoint: Checkpoint) -> LogView:
        end = (await self.ends([checkpoint.partition]))[checkpoint.partition]
        behind = [
            place for place in sorted(self.times[checkpoint.partition].items()) if place[0] >= checkpoint.offset - 1
        ]
        return LogView(end, behind[0] if behind and checkpoint.offset else None)

    async def owner(self, partition: int, *, fresh: bool = False) -> str | None:
        await self._reach()
        self.asked_fresh += fresh
        return self.owners.get(partition)


class FakePeers(_Away):
    """Peers: answers by owner; None, or none: that one owns nothing. `streams`: what its watchers are told, at last an
    error or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, OwnedRows | None] = {}
        self.tops: dict[str, Mapping[int, OwnedTops]] = {}
        self.spools: dict[tuple[str, int], OwnedSpools] = {}
        self.streams: dict[str, asyncio.Queue[Told | ServiceError | None]] = {}
        self.watching = 0
        self.asked: list[str] = []

    async def read(self, owner: str, key: LinkKey, partition: int, hours: range) -> OwnedRows | None:
        await self._reach()
        return self.answers[owner]

    async def read_tops(self, owner: str, user_id: UserId, days: range) -> Mapping[int, OwnedTops]:
        self.asked.append(owner)
        await self._reach()
        return self.tops.get(owner, {})

    async def read_spools(self, owner: str, partition: int, after: str, count: int) -> OwnedSpools | None:
        self.asked.append(owner)
        await self._reach()
        found = self.spools.get((owner, partition))
        if found is None:
            return None
        behind = sorted(spool_id for spool_id in found.spools if spool_id > after)[:count]
        return replace(found, spools={spool_id: found.spools[spool_id] for spool_id in behind})

    async def watch(self, owner: str, key: LinkKey, partition: int, *, timeout_s: float) -> AsyncGenerator[Told, None]:
        self.asked.append(owner)
        await self._reach()
        self.watching += 1
        try:
            while (told := await self.streams[owner].get()) is not None:
                if isinstance(told, ServiceError):
                    raise told
                yield told
        finally:
            self.watching -= 1


class FakeLinks(_Away):
    """Links: facts by short code."""

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, LinkFacts] = {}

    def add(self, short_code: str, user_id: str, created_ms: int) -> None:
        """A link that can be found from now on."""
        self.links[short_code] = LinkFacts(UserId(user_id), created_ms)

    async def find(self, short_code: str, domain: str) -> LinkFacts:
        await self._reach()
        if short_code not in self.links:
            raise NotFound("link_not_found", "There is no such link.")
        return self.links[short_code]


class FakeDeadLetters:
    """DeadLetters in a list."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.away = False
        self.open_breaker = False
        self.person_came = False

    async def open(self) -> None:
        pass

    async def send(self, letter: DeadLetter) -> None:
        if self.away:
            raise Unavailable("unavailable", "away")
        self.letters.append(letter)

    def tripped(self) -> bool:
        return self.open_breaker

    async def resumed(self) -> bool:
        self.open_breaker = not self.person_came
        return self.person_came
