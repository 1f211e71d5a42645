"""A world for dispatchers: fakes, virtual time, and endpoints that answer, hang and fail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from tests.fakes.kafka_time import VirtualClock
from tests.fakes.webhook import (
    FakeDeliveryStore,
    FakeEndpointStore,
    FakeSender,
    claims,
    make_delivery,
    make_endpoint,
)
from webhook.domain.deliveries import Delivery
from webhook.domain.endpoints import Endpoint
from webhook.domain.lanes import LaneLimits
from webhook.loops.astray import AstrayDeliveries
from webhook.loops.dispatcher import Dispatcher, DispatchPolicy

ATTEMPT_S, LEASE_S = 15.0, 30.0
GOOD = make_endpoint("good", url="https://good.example/204")
HANGING = make_endpoint("hanging", url="https://hanging.example/hang")
BAD = make_endpoint("bad", url="https://bad.example/500")


@dataclass
class World:
    """Fakes, and as many dispatchers on them as a test starts."""

    endpoints: FakeEndpointStore = field(default_factory=lambda: FakeEndpointStore(GOOD, HANGING, BAD))
    deliveries: FakeDeliveryStore = field(default_factory=FakeDeliveryStore)
    sender: FakeSender = field(default_factory=FakeSender)
    new_claim: Callable[[], str] = field(default_factory=claims)

    def dispatcher(self, *, sweep_s: float = 1.0, lease_s: float = LEASE_S) -> Dispatcher:
        """A dispatcher with little jitter of chance."""
        return Dispatcher(
            self.endpoints,
            self.deliveries,
            self.sender,
            clock=VirtualClock(),
            policy=DispatchPolicy(
                lanes=LaneLimits(50, 5, 1000, 200),
                attempt_timeout_s=ATTEMPT_S,
                lease_s=lease_s,
                sweep_interval_s=sweep_s,
                drain_s=5.0,
            ),
            new_claim=self.new_claim,
            chance=lambda: 0.5,
        )

    def astray(self) -> AstrayDeliveries:
        """The search for what a wrong clock has put off."""
        return AstrayDeliveries(self.deliveries, clock=VirtualClock(), lease_s=LEASE_S, new_claim=self.new_claim)

    async def hand_over(self, dispatcher: Dispatcher, event_id: str, endpoint: Endpoint = GOOD) -> Delivery:
        """Stores a claimed delivery and offers it, as the fan-out does."""
        delivery = make_delivery(
            event_id, endpoint, claim=self.new_claim(), next_at=VirtualClock().now() + timedelta(seconds=LEASE_S)
        )
        await self.deliveries.add([delivery])
        dispatcher.offer(delivery, endpoint)
        return delivery

    def row(self, event_id: str) -> Delivery:
        """The stored delivery of an event."""
        [row] = [row for row in self.deliveries.rows.values() if row.event_id == event_id]
        return row


@asynccontextmanager
async def running(*dispatchers: Dispatcher | AstrayDeliveries) -> AsyncIterator[asyncio.Event]:
    """Runs dispatchers until the block ends or sets the event."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for dispatcher in dispatchers:
            tasks.create_task(dispatcher.run(stop))
        await asyncio.sleep(0)
        yield stop
        stop.set()
