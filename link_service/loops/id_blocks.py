"""Keeps ids in hand: leases the next block while a whole one is left [K1]."""

import asyncio
import logging
import random

from prometheus_client import Gauge

from chassis.backoff import Backoff
from chassis.clock import sleep_until_stop
from chassis.errors import Unavailable
from chassis.health import SetCondition
from link_service.domain.ids import IdStock
from link_service.ports import CacheServer, IdCounter

_LOOK_S = 0.2  # a spare block lasts minutes at any rate one process can reach
_CALL_TIMEOUT_S = 5.0
_RETRY = Backoff(first_s=0.2, cap_s=5.0)
IDS_LEFT = Gauge("ids_left", "Ids in hand for generated codes")
logger = logging.getLogger(__name__)


class IdBlocks:
    """A component. Unready while there are no ids, and while the counter stands below what Redis knows was leased: it
    was restored from a backup, and would issue codes a second time."""

    def __init__(self, stock: IdStock, counter: IdCounter, server: CacheServer, set_ready: SetCondition) -> None:
        self._stock = stock
        self._counter = counter
        self._server = server
        self._set_ready = set_ready
        self._leased_end = 0  # of the highest block of this process

    async def run(self, stop: asyncio.Event) -> None:
        """Leases until stop is set."""
        failures = 0
        while not stop.is_set():
            delay_s = _LOOK_S
            if self._stock.wants_block:
                try:
                    async with asyncio.timeout(_CALL_TIMEOUT_S):
                        problem = await self.lease()
                except (Unavailable, TimeoutError) as exc:
                    problem = f"no ids in hand: {type(exc).__name__}" if self._stock.left == 0 else None
                    delay_s, failures = _RETRY.delay_s(failures, random.random), failures + 1
                else:
                    failures = 0
                    delay_s = _RETRY.cap_s if problem else 0
                self._set_ready(problem is None, problem or "")
            IDS_LEFT.set(self._stock.left)
            await sleep_until_stop(stop, delay_s)

    async def lease(self) -> str | None:
        """Leases one block; why there is none, or None.

        The mark is read *before* the lease: every lease that raised it had happened by then, so a counter below it has
        gone back. Read afterwards it might tell of another instance's later lease.

        Raises:
            Unavailable: Redis or the table is away.
        """
        known = await self._server.ids_high()
        block = await self._counter.lease(at_least=known)
        if block is None:
            problem = f"the counter of ids stands below {known}, which was leased before, or is used up"
            logger.error("%s", problem)
            return problem
        self._leased_end = max(self._leased_end, block.end)
        await self._server.raise_ids_high(block.end)
        self._stock.add(block)
        return None

    async def tell_again(self) -> None:
        """Raises the mark of a Redis that may have forgotten it.

        Raises:
            Unavailable: Redis is away.
        """
        if self._leased_end:
            await self._server.raise_ids_high(self._leased_end)
