"""Gives an expiry to what was put back into Redis, where the tables hold it by now [R8, R4].

Recovery stores links without an expiry, since it cannot know how far the tables are. Those that the writer had finished
before would stay for ever: nobody else would tell Redis of them again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from contracts.link import Link, LinkKey
from link_service.domain.recovery import Offsets
from link_service.ports import READS_MAX, LinkTable

logger = logging.getLogger(__name__)
_LOOK_S = 5.0
_LEASE_MS = 10_000
_PAUSE_S = 0.02  # between batches: nobody waits for this


class UnsettledLinks(Protocol):
    """What Redis knows of links that were put back. Every call may raise Unavailable, and may be repeated."""

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        """Takes or renews the lease of the one who restores and settles; only spares others the work."""
        ...

    async def unsettled(self) -> Offsets:
        """From where on the log has such links; empty: there are none."""
        ...

    async def without_expiry(self, keys: Sequence[LinkKey]) -> Sequence[LinkKey]:
        """Those that are there and have no expiry."""
        ...

    async def persisted(self, links: Sequence[Link]) -> None:
        """The tables hold these versions [R4]."""
        ...

    async def settled(self, unsettled: Offsets) -> None:
        """Exactly this is done."""
        ...


class KeyReading(Protocol):
    """The log, open for one pass. Every call may raise Unavailable."""

    def keys(self, starts: Offsets) -> AsyncIterator[Sequence[LinkKey]]:
        """The links of all events from these offsets to the end, in parts; a link may come several times."""
        ...


class KeyLog(Protocol):
    """links-events, to be looked at."""

    def open(self) -> AbstractAsyncContextManager[KeyReading]:
        """For one pass. Raises Unavailable."""
        ...


class Settling:
    """A component. Pace and outcome matter to memory alone, so it takes its time and starts over after any failure."""

    def __init__(self, *, redis: UnsettledLinks, log: KeyLog, table: LinkTable, clock: Clock, candidate: str) -> None:
        self._redis = redis
        self._log = log
        self._table = table
        self._clock = clock
        self._candidate = candidate

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until stop."""
        while not await sleep_until_stop(stop, _LOOK_S):
            try:
                await self.settle(stop)
            except Unavailable as exc:
                logger.info("links that were put back have no expiry yet: %s", exc.message)

    async def settle(self, stop: asyncio.Event) -> None:
        """One pass, if there is anything to settle and nobody else is at it.

        Raises:
            Unavailable: Redis, Kafka or the table is away.
        """
        unsettled = await self._redis.unsettled()
        if not unsettled or not await self._redis.lead(self._candidate, lease_ms=_LEASE_MS):
            return
        done: set[LinkKey] = set()
        async with self._log.open() as log:
            async for keys in log.keys(unsettled):
                await self._redis.lead(self._candidate, lease_ms=_LEASE_MS)
                fresh = [key for key in dict.fromkeys(keys) if key not in done]
                done.update(fresh)
                for first in range(0, len(fresh), READS_MAX):
                    if stop.is_set():
                        return
                    await self._settle(fresh[first : first + READS_MAX])
                    await self._clock.sleep(_PAUSE_S)
        await self._redis.settled(unsettled)
        logger.info("links that were put back have an expiry where the tables hold them: %d looked at", len(done))

    async def _settle(self, keys: Sequence[LinkKey]) -> None:
        """A version that the tables do not have yet keeps its entry for ever until the writer is there [R4]."""
        held = await self._redis.without_expiry(keys)
        if not held:
            return
        async for part in self._table.read_many(held):
            found = [link for link in part.values() if isinstance(link, Link)]
            if found:
                await self._redis.persisted(found)
