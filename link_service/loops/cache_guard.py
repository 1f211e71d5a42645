"""Watches that Redis has the Function library and is durable: an acknowledgement stands on it [R6]."""

import asyncio
import logging

from chassis.clock import sleep_until_stop
from chassis.errors import Unavailable
from chassis.health import SetCondition
from link_service.ports import CacheFitness

logger = logging.getLogger(__name__)
_FIRST_TRIES_S = 0.5
_RECHECK_S = 10.0  # somebody may change the configuration of a running server


class CacheGuard:
    """A component: the condition is met once Redis was found fit, and until it is found unfit.

    A Redis that is away later changes nothing: redirects are still answered, and who creates is told so.
    """

    def __init__(self, *, fitness: CacheFitness, set_ready: SetCondition) -> None:
        self._fitness = fitness
        self._set_ready = set_ready

    async def run(self, stop: asyncio.Event) -> None:
        """Checks until stop."""
        checked = False
        while True:
            try:
                problem = await self._fitness.problem()
            except Unavailable:
                if not checked:
                    self._set_ready(met=False, why_not="Redis does not answer")
            else:
                checked = True
                if problem:
                    logger.error("not ready: %s", problem)
                self._set_ready(met=problem is None, why_not=problem or "")
            if await sleep_until_stop(stop, _RECHECK_S if checked else _FIRST_TRIES_S):
                return
