"""Watches that Redis has the Function library and is durable, since an acknowledgement stands on it, and how full it is
[R6, O3]."""

import asyncio
import logging

from prometheus_client import Gauge

from chassis.clock import sleep_until_stop
from chassis.errors import Unavailable
from chassis.health import SetCondition
from contracts.cache import OUTBOX_OF_MEMORY
from link_service.domain.memory import MemoryLevel, level_of
from link_service.ports import CacheFitness

logger = logging.getLogger(__name__)
_FIRST_TRIES_S = 0.5
_LOOK_S = 1.0  # at 200 creates/s a GB fills up from 70 to 85 % in over a quarter of an hour
_CHECK_EACH = 10  # looks: somebody may change the configuration of a running server

MEMORY_RATIO = Gauge("redis_memory_used_ratio", "Share of Redis' maxmemory in use; from 0.85 on creates are refused.")
OUTBOX_MAX = Gauge("outbox_bytes_max", "Memory that the outbox may take; at 0.9 of it creates are refused.")


class CacheGuard:
    """A component: the condition is met once Redis was found fit, and until it is found unfit.

    A Redis that is away later changes nothing: redirects are still answered, and who creates is told so.
    `outbox_bytes_max`: as configured; 0: a share of maxmemory.
    """

    def __init__(self, *, fitness: CacheFitness, set_ready: SetCondition, outbox_bytes_max: int = 0) -> None:
        self._fitness = fitness
        self._set_ready = set_ready
        self._outbox_bytes_max = outbox_bytes_max
        self._checked = False
        self._level = MemoryLevel.WELL

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until stop."""
        looks = 0
        while True:
            try:
                if looks % _CHECK_EACH == 0:
                    await self._check()
                await self._measure()
            except Unavailable:
                if not self._checked:
                    self._set_ready(met=False, why_not="Redis does not answer")
            looks = looks + 1 if self._checked else 0
            if await sleep_until_stop(stop, _LOOK_S if self._checked else _FIRST_TRIES_S):
                return

    async def _check(self) -> None:
        problem = await self._fitness.problem()
        self._checked = True
        if problem:
            logger.error("not ready: %s", problem)
        self._set_ready(met=problem is None, why_not=problem or "")

    async def _measure(self) -> None:
        memory = await self._fitness.memory()
        MEMORY_RATIO.set(memory.share)
        OUTBOX_MAX.set(self._outbox_bytes_max or OUTBOX_OF_MEMORY * memory.limit_bytes)
        level = level_of(memory.share)
        if level is not self._level:
            serious = level.value >= MemoryLevel.NO_CREATES.value
            text = "Redis uses %.0f %% of its memory: %s"
            logger.log(logging.ERROR if serious else logging.WARNING, text, memory.share * 100, level.sentence)
            self._level = level
