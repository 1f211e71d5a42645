"""Puts back into Redis what it may have forgotten when it was restarted or replaced, and keeps the gate meanwhile [R8].

Redis itself knows into which of its runs everything was put back: so instances agree, a restarted one has nothing to
do, and a Redis that comes back older or empty is found out. Every step may be repeated, by several at once, and by one
whose Redis restarts in the middle: each is for one run, and Redis refuses it at another.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from chassis.health import SetCondition
from contracts.link import Link
from link_service.domain.cache_gate import CacheGate
from link_service.domain.recovery import (
    LogState,
    Newest,
    Offsets,
    Remembered,
    Standing,
    first_offsets,
    forgotten_by_the_log,
    left_unsettled,
)

logger = logging.getLogger(__name__)

RESTORED = Gauge("redis_restored", "1 while Redis is known to hold what was acknowledged; at 0 changes answer 503.")
RESTORATIONS = Counter("redis_restorations", "Times that this process put back what Redis may have forgotten.")
LINKS_RESTORED = Counter("redis_links_restored", "Links that Redis had forgotten, or knew an older version of.")
DURATION = Histogram(
    "redis_restoration_duration_seconds", "From the look at the log to the end.", buckets=(0.1, 0.3, 1, 3, 10, 30, 100)
)
_AGAIN = Backoff(first_s=0.2, cap_s=2.0)  # after a failure: Kafka's return is noticed within two seconds
_BATCH = 200  # links of one pipeline: a few ms of this loop and of Redis


class RecoveringRedis(Protocol):
    """The library's calls for recovery. Every call may raise Unavailable, and may be repeated."""

    async def standing(self) -> Standing:
        """Which run answers."""
        ...

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the lease of the one who restores; only spares others the work."""
        ...

    async def remembered(self) -> Remembered:
        """What this Redis was told of the log."""
        ...

    async def restore(self, links: Sequence[Link], run_id: str) -> int | None:
        """Stores those that are absent or older; how many. None: it is another run, or restored by somebody."""
        ...

    async def complete(self, run_id: str, *, unsettled: Offsets) -> bool:
        """This run is restored; False: it is another one."""
        ...

    async def note(self, run_id: str, ends: Offsets) -> None:
        """Remembers where the log ended before this call, unless it is another run, or not restored."""
        ...


class Reading(Protocol):
    """The log, open for one recovery. Every call may raise Unavailable."""

    async def state(self, *, recent: bool) -> LogState:
        """What there is to read now; `recent`: also where its last ten minutes begin."""
        ...

    def links(self, partition: int, start: int, end: int) -> AsyncIterator[Sequence[Link]]:
        """What the events between these offsets made of their links, in parts; what cannot be read is left out."""
        ...


class RecentEvents(Protocol):
    """links-events, to be looked at."""

    async def ends(self) -> Offsets:
        """Where each partition ends. Raises Unavailable."""
        ...

    def open(self) -> AbstractAsyncContextManager[Reading]:
        """For one recovery. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """The knobs."""

    look_s: float = 0.5  # how long changes are refused at most after somebody else has restored Redis
    note_s: float = 10.0  # a Redis that comes back older is told what came after its last note
    lease_ms: int = 5_000
    again: Backoff = _AGAIN


class Recovery:
    """A component: opens the gate once Redis is restored, and shuts it when it finds another run. `candidate` must be
    this process' alone. `on_run` is called once the gate is open for a run, to say what Redis may have forgotten
    besides; again until it succeeds.
    """

    def __init__(
        self,
        *,
        redis: RecoveringRedis,
        log: RecentEvents,
        gate: CacheGate,
        clock: Clock,
        candidate: str,
        set_ready: SetCondition,
        on_run: Callable[[], Awaitable[None]],
        policy: RecoveryPolicy | None = None,
    ) -> None:
        self._redis = redis
        self._log = log
        self._gate = gate
        self._clock = clock
        self._candidate = candidate
        self._set_ready = set_ready
        self._on_run = on_run
        self._policy = policy or RecoveryPolicy()
        self._leader_since: float | None = None
        self._was_open = False
        self._told_run = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until stop."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_noting(stop), name="note the log's ends")
            failures = 0
            while True:
                try:
                    await self.look(stop)
                    failures, delay_s = 0, self._policy.look_s
                except Unavailable as exc:
                    if self._gate.run_id is None:
                        self._tell_why_not(exc, failures)
                    delay_s, failures = self._policy.again.delay_s(failures), failures + 1
                if await sleep_until_stop(stop, delay_s):
                    return

    async def look(self, stop: asyncio.Event) -> None:
        """One look at Redis, and what follows from it.

        Raises:
            Unavailable: Redis or Kafka is away. The gate is as it was, or shut.
        """
        standing = await self._redis.standing()
        if not standing.restored:
            self._gate.shut()
            self._told_run = ""  # also a run that was emptied and is still the same
            RESTORED.set(0)
            if not await self._lead() or not await self._restore(standing.run_id, stop):
                return
        if self._gate.run_id != standing.run_id:
            self._gate.open(standing.run_id)
            RESTORED.set(1)
            self._was_open = True
            self._set_ready(met=True)
            logger.info("Redis holds what was acknowledged: changes go on")
        if self._told_run != standing.run_id:
            await self._on_run()
            self._told_run = standing.run_id

    async def _restore(self, run_id: str, stop: asyncio.Event) -> bool:
        """Whether this run of Redis is restored now."""
        logger.warning("Redis is at another run than before; changes wait until it was told of the last events")
        started = self._clock.monotonic()
        remembered = await self._redis.remembered()
        async with self._log.open() as log:
            state = await log.state(recent=not remembered.noted)
            if missing := forgotten_by_the_log(state, remembered):
                logger.error(
                    "Redis came back older than Kafka remembers (partitions %s): old versions may stay", missing
                )
            starts = first_offsets(state, remembered)
            stored = await self._put_back(log, starts, state.ends, run_id, stop)
            if stored is None:
                return False
            ends = (await log.state(recent=False)).ends
            later = await self._put_back(log, state.ends, ends, run_id, stop)  # what has come meanwhile
            if later is None:
                return False
        if not await self._redis.complete(run_id, unsettled=left_unsettled(starts, ends)):
            return False
        RESTORATIONS.inc()
        DURATION.observe(self._clock.monotonic() - started)
        logger.warning("Redis was told what it had forgotten: %d links", stored + later)
        return True

    async def _put_back(
        self, log: Reading, starts: Offsets, ends: Offsets, run_id: str, stop: asyncio.Event
    ) -> int | None:
        """How many links were stored; None: this is over, or we are to stop. One partition at a time is in memory."""
        stored = 0
        for partition, end in ends.items():
            newest = Newest()
            async for links in log.links(partition, starts.get(partition, 0), end):
                newest.add(links)
                await self._lead()
                if stop.is_set():
                    return None
            found = newest.in_order()
            for first in range(0, len(found), _BATCH):
                count = await self._redis.restore(found[first : first + _BATCH], run_id)
                if count is None or stop.is_set():
                    return None
                LINKS_RESTORED.inc(count)
                stored += count
        return stored

    async def _lead(self) -> bool:
        """Takes the lease, or renews it when a third of it is over."""
        now = self._clock.monotonic()
        if self._leader_since is not None and now - self._leader_since < self._policy.lease_ms / 3000:
            return True
        leading = await self._redis.lead(self._candidate, lease_ms=self._policy.lease_ms)
        self._leader_since = now if leading else None
        return leading

    async def _keep_noting(self, stop: asyncio.Event) -> None:
        while not await sleep_until_stop(stop, self._policy.note_s):
            run_id = self._gate.run_id
            if run_id is None:
                continue
            try:
                await self._redis.note(run_id, await self._log.ends())
            except Unavailable as exc:
                logger.info("the log's ends are not noted: %s", exc.message)

    def _tell_why_not(self, exc: Unavailable, failures: int) -> None:
        if not self._was_open:  # later the process stays ready: reads of the table, keys and history go on
            self._set_ready(met=False, why_not=f"Redis is not restored: {exc.message}")
        if failures % 10 == 0:
            logger.warning("Redis is not restored yet: %s", exc.message)
