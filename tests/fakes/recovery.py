"""A Redis that may come back older or empty, and the log it is restored from, in memory."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field

from chassis.errors import Unavailable
from contracts.link import Link, LinkKey, bucket_of
from link_service.domain.recovery import WINDOW_MS, LogState, Offsets, Remembered, Standing
from tests.fakes.link_cache import FakeLinkCache, FakeRedis


@dataclass
class FakeRecovery:
    """The ports RecoveringRedis and UnsettledLinks on a FakeRedis. `calls`: how often links were restored."""

    redis: FakeRedis
    noted: Offsets = field(default_factory=dict)
    left: Offsets = field(default_factory=dict)
    leader: tuple[str, float] | None = None
    calls: int = 0

    async def standing(self) -> Standing:
        self.redis.answer()
        return Standing(self.redis.run_id, restored=self.redis.restored_run == self.redis.run_id)

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        self.redis.answer()
        now = self.redis.clock.monotonic()
        if self.leader is not None and self.leader[0] != candidate and now < self.leader[1]:
            return False
        self.leader = (candidate, now + lease_ms / 1000)
        return True

    async def remembered(self) -> Remembered:
        self.redis.answer()
        return Remembered(self.noted, self.left)

    async def restore(self, links: Sequence[Link], run_id: str) -> int | None:
        self.redis.answer()
        self.calls += 1
        if run_id != self.redis.run_id or self.redis.restored_run == run_id:
            return None
        stored = 0
        for link in links:
            known = self.redis.value(link.key)
            if known is None or known.version < link.version:
                self.redis.store(link, None)
                stored += 1
        return stored

    async def complete(self, run_id: str, *, unsettled: Offsets) -> bool:
        self.redis.answer()
        if run_id != self.redis.run_id:
            return False
        self.redis.restored_run = run_id
        self.left = dict(unsettled) or self.left
        return True

    async def note(self, run_id: str, ends: Offsets) -> None:
        self.redis.answer()
        if run_id == self.redis.run_id == self.redis.restored_run:
            self.noted = dict(ends)

    async def unsettled(self) -> Offsets:
        self.redis.answer()
        return self.left

    async def settled(self, unsettled: Offsets) -> None:
        self.redis.answer()
        if self.left == unsettled:
            self.left = {}

    async def without_expiry(self, keys: Sequence[LinkKey]) -> Sequence[LinkKey]:
        self.redis.answer()
        return [key for key in keys if key in self.redis.values and self.redis.values[key][1] is None]

    async def persisted(self, links: Sequence[Link]) -> None:
        cache = FakeLinkCache(self.redis)
        for link in links:
            await cache.persisted(link)

    def copy(self) -> "Copy":
        """What a backup of Redis made now has."""
        state = (self.redis.values, self.redis.streams, self.redis.restored_run, self.noted, self.left)
        return Copy(*deepcopy(state))

    def come_back(self, run_id: str, copy: "Copy | None" = None) -> None:
        """Redis starts again: as it was in the copy, or empty."""
        copy = copy or Copy({}, defaultdict(list), "", {}, {})
        self.redis.run_id = run_id
        self.redis.leases.clear()
        self.redis.results.clear()
        self.redis.values, self.redis.streams = deepcopy(copy.values), deepcopy(copy.streams)
        self.redis.restored_run, self.noted, self.left = copy.restored_run, copy.noted, copy.left
        self.leader = None


@dataclass(frozen=True)
class Copy:
    """The data of a Redis."""

    values: dict[LinkKey, tuple[Link, float | None]]
    streams: dict[int, list]  # type: ignore[type-arg]  # entries, only handed through
    restored_run: str
    noted: Offsets
    left: Offsets


@dataclass
class FakeRecentEvents:
    """The ports RecentEvents and KeyLog: `partitions` of events with the broker's milliseconds. `opened`: how often."""

    partitions: Mapping[int, list[tuple[int, Link]]] = field(default_factory=lambda: {n: [] for n in range(4)})
    begins: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    away: bool = False
    opened: int = 0

    def add(self, link: Link, at_ms: int) -> None:
        """An event arrives."""
        self.partitions[bucket_of(link.key) % len(self.partitions)].append((at_ms, link))

    def the_writer_catches_up(self) -> None:
        """It has committed everything."""
        self.written = {number: len(events) for number, events in self.partitions.items()}

    async def ends(self) -> Offsets:
        self._answer()
        return {number: len(events) for number, events in self.partitions.items()}

    @asynccontextmanager
    async def open(self) -> AsyncIterator["FakeRecentEvents"]:
        self._answer()
        self.opened += 1
        yield self

    async def state(self, *, recent: bool) -> LogState:
        self._answer()
        newest = max((at for events in self.partitions.values() for at, _ in events), default=0)
        lately = {
            number: next(offset for offset, (at, _) in enumerate(events) if at >= newest - WINDOW_MS)
            for number, events in self.partitions.items()
            if recent and events and events[-1][0] >= newest - WINDOW_MS
        }
        begins = {number: self.begins.get(number, 0) for number in self.partitions}
        return LogState(begins, await self.ends(), lately, self.written)

    async def links(self, partition: int, start: int, end: int) -> AsyncIterator[Sequence[Link]]:
        for offset in range(start, end):
            self._answer()
            yield [self.partitions[partition][offset][1]]

    async def keys(self, starts: Offsets) -> AsyncIterator[Sequence[LinkKey]]:
        self._answer()
        for number, events in self.partitions.items():
            yield [link.key for _, link in events[starts.get(number, len(events)) :]]

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("unavailable", "The broker is away.", retry_after_s=1)
