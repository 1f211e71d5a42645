"""Redis in memory, with the Function library's rules written a second time: tests/contract proves that both agree."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from chassis.clock import Clock
from chassis.errors import Unavailable
from contracts.cache import BUCKETS, CACHE_TTL_S, LEASE_MS, LeaseToken, Mutation
from contracts.link import EventId, Link, LinkKey, LinkState, bucket_of
from contracts.outbox_entries import encode_outbox_entry
from link_service.domain.cache_gate import CacheGate
from link_service.ports import (
    Conflict,
    Done,
    Full,
    Held,
    Late,
    Leased,
    LeaseNeeded,
    OutboxDepth,
    Position,
    Present,
    QueuedEntry,
    Restoring,
    Verdict,
)

_HOUR_S, _MINUTE_S = 3600, 60
_BEFORE_ALL = Position((0, 0))


@dataclass
class FakeRedis:
    """What both ports look at. `away`: nobody gets an answer. `deaf`: mutations are applied, their answers lost.

    `memory_share`: how much of its memory is in use. `lead_of_clock`: how far its clock is before ours.
    """

    clock: Clock
    away: bool = False
    deaf: bool = False
    memory_share: float = 0.0
    lead_of_clock: timedelta = timedelta(0)
    values: dict[LinkKey, tuple[Link, float | None]] = field(default_factory=dict)  # until: monotonic, None: for ever
    leases: dict[LinkKey, tuple[LeaseToken, float]] = field(default_factory=dict)
    results: dict[EventId, Link] = field(default_factory=dict)
    streams: dict[int, list[QueuedEntry]] = field(default_factory=lambda: defaultdict(list))
    aside: list[QueuedEntry] = field(default_factory=list)
    leader: tuple[str, float] | None = None
    run_id: str = "run-1"
    restored_run: str = ""  # the run into which everything was put back
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _last: Position = _BEFORE_ALL

    def now(self) -> datetime:
        """Redis' clock."""
        return self.clock.now() + self.lead_of_clock

    def value(self, key: LinkKey) -> Link | None:
        """What is stored and has not expired."""
        link, until = self.values.get(key, (None, None))
        return None if until is not None and self.clock.monotonic() >= until else link

    def holds(self, key: LinkKey, token: LeaseToken | None) -> bool:
        """Whether the lease is this token's."""
        held, until = self.leases.get(key, (None, 0.0))
        return token is not None and held == token and self.clock.monotonic() < until

    def store(self, link: Link, ttl_s: float | None) -> None:
        """Writes a value, which ends the lease."""
        self.values[link.key] = (link, None if ttl_s is None else self.clock.monotonic() + ttl_s)
        self.leases.pop(link.key, None)

    def ttl_s(self, link: Link, wanted_s: float) -> float:
        """R6, with the jitter from the end of the event id."""
        longest = wanted_s
        if self.memory_share >= 0.5:
            longest = min(wanted_s, _MINUTE_S if self.memory_share >= 0.7 else _HOUR_S)
        if link.state is LinkState.DELETED:
            return longest
        return longest * (0.8 + 0.4 * int(link.event_id[-4:], 16) / 65535)

    def append(self, bucket: int, data: bytes) -> None:
        """XADD: positions only ever grow."""
        milliseconds = int(self.now().timestamp() * 1000)
        last = self._last
        self._last = Position((milliseconds, 0) if milliseconds > last[0] else (last[0], last[1] + 1))
        self.streams[bucket].append(QueuedEntry(bucket, self._last, data))
        self.arrived.set()

    def answer(self) -> None:
        """Raises if nobody answers."""
        if self.away:
            raise Unavailable("unavailable", "Redis does not answer.", retry_after_s=1)


class FakeLinkCache:
    """The port LinkCache on a FakeRedis."""

    def __init__(self, redis: FakeRedis, *, outbox_entries_max: int = 0, gate: CacheGate | None = None) -> None:
        self.redis = redis
        self.outbox_entries_max = outbox_entries_max  # stands for the budget of bytes [O3]; 0: none
        self.gate = gate
        self.pipelines: list[int] = []  # how many mutations each call of `mutate_all` had
        self.bug: Exception | None = None  # what `mutate_all` raises, as only a fault of ours can
        self._tokens = itertools.count(1)

    async def get(self, key: LinkKey) -> Link | None:
        self.redis.answer()
        return self.redis.value(key)

    def _shut(self) -> bool:
        """Whether the gate names another run than this one, or this one has forgotten [R8].

        Raises Restoring if it names none."""
        if self.gate is None:
            return False
        if self.gate.run_id is None:
            raise Restoring
        return self.gate.run_id != self.redis.run_id or self.gate.run_id != self.redis.restored_run

    async def mutate(self, mutation: Mutation) -> Verdict:
        is_another_run = self._shut()
        self.redis.answer()
        verdict = self._mutate(mutation, is_another_run=is_another_run)
        if self.redis.deaf:
            raise Unavailable("outcome_unknown", "Redis does not answer.", retry_after_s=1)
        return verdict

    async def mutate_all(self, mutations: Sequence[Mutation]) -> Sequence[Verdict | Unavailable]:
        self.pipelines.append(len(mutations))
        if self.bug is not None:
            raise self.bug
        return [await self._told(mutation) for mutation in mutations]

    async def _told(self, mutation: Mutation) -> Verdict | Unavailable:
        try:
            return await self.mutate(mutation)
        except Unavailable as exc:
            return exc

    def _mutate(self, mutation: Mutation, *, is_another_run: bool) -> Verdict:
        redis, link = self.redis, mutation.event.link
        assert link.version == mutation.base_version + 1
        if (result := redis.results.get(mutation.event.event_id)) is not None:
            return Done(result, repeated=True)
        stored = redis.value(link.key)
        if stored is not None and stored.event_id == mutation.event.event_id:
            return Done(stored, repeated=True)
        if is_another_run:
            raise Restoring
        if mutation.not_after is not None and redis.now() > mutation.not_after:
            return Late()
        is_create = mutation.base_version == 0
        if stored is not None:
            if stored.version != mutation.base_version:
                return Conflict()
        elif not (mutation.generated and is_create) and not redis.holds(link.key, mutation.token):
            return LeaseNeeded()
        if what := self._full(link.key, is_create=is_create):
            return Full(what)
        redis.store(link, None)
        redis.append(bucket_of(link.key), encode_outbox_entry(mutation.event, mutation.traceparent))
        if mutation.remember:
            redis.results[mutation.event.event_id] = link
        return Done(link)

    def _full(self, key: LinkKey, *, is_create: bool) -> str | None:
        if self.redis.memory_share >= (0.85 if is_create else 0.95):
            return "memory"
        waiting = len(self.redis.streams[bucket_of(key)])
        budget = self.outbox_entries_max * (0.9 if is_create else 1.0)
        return "outbox" if self.outbox_entries_max and waiting >= budget else None

    async def lease(self, key: LinkKey, *, lease_ms: int = LEASE_MS) -> Present | Leased | Held:
        is_another_run = self._shut()
        self.redis.answer()
        if is_another_run:
            raise Restoring
        stored = self.redis.value(key)
        if stored is not None:
            return Present(stored)
        _, until = self.redis.leases.get(key, (b"", 0.0))
        now = self.redis.clock.monotonic()
        if now < until or self.redis.memory_share >= 0.95:
            return Held()
        token = LeaseToken(b"token-%d" % next(self._tokens))
        self.redis.leases[key] = (token, now + lease_ms / 1000)
        return Leased(token)

    async def release(self, key: LinkKey, token: LeaseToken) -> None:
        self.redis.answer()
        if self.redis.holds(key, token):
            del self.redis.leases[key]

    async def fill(self, token: LeaseToken, link: Link) -> Link:
        is_another_run = self._shut()
        self.redis.answer()
        stored = self.redis.value(link.key)
        if stored is not None:
            return stored
        if not is_another_run and self.redis.holds(link.key, token):
            del self.redis.leases[link.key]
            if self.redis.memory_share < 0.7:
                self.redis.store(link, self.redis.ttl_s(link, CACHE_TTL_S))
        return link

    async def seen(self, key: LinkKey, event_id: EventId) -> Link | None:
        self.redis.answer()
        return self.redis.results.get(event_id)

    async def remember(self, key: LinkKey, event_id: EventId, link: Link, not_after: datetime) -> Link | Late:
        self.redis.answer()
        if event_id not in self.redis.results and self.redis.now() > not_after:
            return Late()
        return self.redis.results.setdefault(event_id, link)

    async def now(self) -> datetime:
        self.redis.answer()
        return self.redis.now()

    async def persisted(self, link: Link) -> None:
        """R4, which the writer calls."""
        self.redis.answer()
        stored = self.redis.value(link.key)
        if stored is None or stored.version > link.version:
            return
        if stored.version < link.version:
            self.redis.store(link, self.redis.ttl_s(link, CACHE_TTL_S))
        elif stored.event_id == link.event_id:
            until = self.redis.clock.monotonic() + self.redis.ttl_s(stored, CACHE_TTL_S)
            self.redis.values[link.key] = (stored, until)


class FakeOutbox:
    """The port Outbox on a FakeRedis. `per_stream`: how many entries of each bucket a read returns."""

    def __init__(self, redis: FakeRedis, *, per_stream: int = 16) -> None:
        self.redis = redis
        self.per_stream = per_stream
        self._run_id = ""  # of the last read; empty: none yet

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        self.redis.answer()
        now = self.redis.clock.monotonic()
        if self.redis.leader is not None and self.redis.leader[0] != candidate and now < self.redis.leader[1]:
            return False
        self.redis.leader = (candidate, now + lease_ms / 1000)
        return True

    async def resign(self, candidate: str) -> None:
        self.redis.answer()
        if self.redis.leader is not None and self.redis.leader[0] == candidate:
            self.redis.leader = None

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        self.redis.answer()
        if not self._heads():
            self.redis.arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self.redis.arrived.wait()
            except TimeoutError:
                return []
            self.redis.answer()
        self._run_id = self.redis.run_id
        return self._heads()

    def _heads(self) -> list[QueuedEntry]:
        return [entry for bucket in range(BUCKETS) for entry in self.redis.streams[bucket][: self.per_stream]]

    async def trim(self, through: Mapping[int, Position]) -> None:
        self.redis.answer()
        if self._run_id not in ("", self.redis.run_id):
            return
        for bucket, position in through.items():
            kept = [entry for entry in self.redis.streams[bucket] if entry.position > position]
            self.redis.streams[bucket] = kept

    async def set_aside(self, entry: QueuedEntry) -> None:
        self.redis.answer()
        self.redis.aside.append(replace(entry))

    async def depth(self) -> OutboxDepth:
        self.redis.answer()
        waiting = [entry for stream in self.redis.streams.values() for entry in stream]
        now_ms = self.redis.now().timestamp() * 1000
        oldest_ms = min((entry.position[0] for entry in waiting), default=now_ms)
        size = sum(len(entry.data) for entry in waiting)
        return OutboxDepth(entries=len(waiting), size_bytes=size, oldest_age_s=max(0.0, now_ms - oldest_ms) / 1000)
