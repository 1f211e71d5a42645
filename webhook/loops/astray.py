"""Takes up deliveries that a wrong clock put off and left behind: nobody else would make them in time."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prometheus_client import Counter

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from webhook.domain.deliveries import DUE_BUCKETS, is_astray
from webhook.ports import Cursor, DeliveryStore

ASTRAY = Counter("webhook_deliveries_astray", "Deliveries that a wrong clock had put off, and that were taken up")
_INTERVAL_S = 3600.0  # each search reads all that is pending
_PAGE = 100
_ALL = datetime(9999, 1, 1, tzinfo=UTC)
_BACKOFF = Backoff(first_s=0.2, cap_s=5.0)
logger = logging.getLogger(__name__)


class AstrayDeliveries:
    """A component: searches at the start, since a process whose clock is wrong mostly ends by being started again with
    the right time, and each hour. What it finds is due when the lease of its own claim is over."""

    def __init__(
        self, deliveries: DeliveryStore, *, clock: Clock, lease_s: float, new_claim: Callable[[], str]
    ) -> None:
        self._deliveries = deliveries
        self._clock = clock
        self._lease_s = lease_s
        self._new_claim = new_claim

    async def run(self, stop: asyncio.Event) -> None:
        """Searches until stop is set."""
        failures = 0
        while not stop.is_set():
            try:
                for bucket in range(DUE_BUCKETS):
                    await self._search(bucket)
            except Unavailable:
                delay_s, failures = _BACKOFF.delay_s(failures), failures + 1
            else:
                delay_s, failures = _INTERVAL_S, 0
            await sleep_until_stop(stop, delay_s)

    async def _search(self, bucket: int) -> None:
        """One bucket of the index, all pages."""
        after: Cursor | None = None
        while True:
            page = await self._deliveries.due(bucket, now=_ALL, after=after, limit=_PAGE)
            now = self._clock.now()
            for delivery in page.deliveries:
                if is_astray(delivery, now=now, lease_s=self._lease_s):
                    until = now + timedelta(seconds=self._lease_s)
                    if await self._deliveries.claim(delivery, claim=self._new_claim(), until=until):
                        ASTRAY.inc()
                        logger.warning("a wrong clock had put a delivery off until %s", delivery.next_at)
            if (after := page.after) is None:
                return
