"""A batch of events becomes rows, and rows become first attempts."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from chassis.errors import Unavailable
from chassis.kafka.record import Done, Outcome, Record, Rejected
from contracts.link import LinkEvent
from tests.fakes.kafka_time import START as NOW
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.link_events import event_of, make_link, record_of
from tests.fakes.webhook import FakeDeliveryStore, FakeEndpointStore, claims, make_endpoint
from webhook.domain.deliveries import Delivery
from webhook.domain.endpoints import Endpoint, EndpointId
from webhook.handlers.fan_out import FanOut

TRACEPARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
LEASE = timedelta(seconds=30)


class FakeFirstAttempts:
    """FirstAttempts that keeps what it is offered, and has room for so many."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.offered: list[tuple[Delivery, Endpoint]] = []

    def has_room(self, endpoint_id: EndpointId) -> bool:
        """Whether there is room."""
        return len(self.offered) < self.room

    def offer(self, delivery: Delivery, endpoint: Endpoint) -> bool:
        """Keeps it."""
        self.offered.append((delivery, endpoint))
        return True


class World:
    """A fan-out on fakes, with two endpoints of ada."""

    def __init__(self, room: int = 100) -> None:
        old = NOW - timedelta(days=1)
        self.one = make_endpoint("one", created_at=old)
        self.two = make_endpoint("two", created_at=old, event_types=("link.deleted",))
        self.endpoints = FakeEndpointStore(self.one, self.two)
        self.deliveries = FakeDeliveryStore()
        self.first = FakeFirstAttempts(room)

    def handle(self, records: Sequence[Record]) -> list[Outcome]:
        """Runs one batch at NOW."""

        async def run() -> list[Outcome]:
            fan_out = FanOut(
                self.endpoints,
                self.deliveries,
                self.first,
                clock=VirtualClock(),
                new_claim=claims(),
                lease_s=LEASE.total_seconds(),
                public_url="https://lm.example",
            )
            return await fan_out(records)

        return run_virtual(run())


def recent(code: str, *, user_id: str = "ada") -> LinkEvent:
    """A creation, a second ago."""
    event = event_of(make_link(code, user_id=user_id))
    return replace(event, at=NOW - timedelta(seconds=1))


def traced(event: LinkEvent) -> Record:
    """Its record, with a trace."""
    record = record_of(event)
    return replace(record, headers=(*record.headers, ("traceparent", TRACEPARENT.encode())))


@pytest.mark.rule("H1")
def test_an_event_becomes_one_claimed_row_for_each_endpoint_that_wants_it() -> None:
    """The row has the body, the trace and a lease, and the delivery goes on from memory."""
    world = World()
    event = recent("abc")

    outcomes = world.handle([traced(event)])

    assert outcomes == [Done()]
    [(name, row)] = world.deliveries.rows.items()
    assert name == ("one", event.event_id)
    assert (row.claim, row.next_at, row.traceparent) == ("claim-1", NOW + LEASE, TRACEPARENT)
    assert '"short_url":"https://lm.example/abc"' in row.body
    assert world.first.offered == [(row, world.one)]


@pytest.mark.rule("H1")
def test_a_repeated_record_changes_nothing_and_is_not_handed_over_again() -> None:
    """Redelivery after a crash meets its own row; whoever holds its claim, or the index, goes on with it."""
    world = World()
    record = traced(recent("abc"))
    world.handle([record])
    before = dict(world.deliveries.rows)

    assert world.handle([record]) == [Done()]
    assert world.deliveries.rows == before
    assert len(world.first.offered) == 1


@pytest.mark.rule("H1")
def test_without_room_in_memory_a_row_is_due_at_once() -> None:
    """What memory does not take waits in the index, unclaimed, for whoever looks next."""
    world = World(room=0)

    world.handle([traced(recent("abc"))])

    [row] = world.deliveries.rows.values()
    assert (row.claim, row.next_at) == ("", NOW)
    assert world.first.offered == []


@pytest.mark.rule("H1", "C1")
def test_an_undecodable_record_is_rejected_and_the_others_are_done() -> None:
    """Each record has an outcome of its own, in order; links of accounts without endpoints cost nothing."""
    world = World()
    broken = replace(traced(recent("broken")), value=b"\xff")
    unknown = replace(traced(recent("unknown")), headers=(("ce_type", b"somebody.Elses"),))

    outcomes = world.handle([broken, traced(recent("abc")), unknown, traced(recent("other", user_id="bob"))])

    assert [type(item) for item in outcomes] == [Rejected, Done, Rejected, Done]
    assert [item.reason for item in outcomes if isinstance(item, Rejected)] == ["undecodable"] * 2
    assert len(world.deliveries.rows) == 1


@pytest.mark.rule("H1", "C1")
@pytest.mark.parametrize("store", ["endpoints", "deliveries"])
def test_a_database_that_is_away_is_not_the_records_fault(store: str) -> None:
    """Unavailable goes to the runner, which pauses; after it the same batch is done."""
    world = World()
    getattr(world, store).away = 1

    with pytest.raises(Unavailable):
        world.handle([traced(recent("abc"))])

    assert world.handle([traced(recent("abc"))]) == [Done()]
    assert len(world.first.offered) == 1


@pytest.mark.rule("H1")
def test_a_put_whose_answer_was_lost_is_left_to_its_lease() -> None:
    """Nobody knows whether another holds the row: it is not handed over, and comes up by the index."""
    world = World()
    world.deliveries.lost = 1
    record = traced(recent("abc"))

    with pytest.raises(Unavailable):
        world.handle([record])

    assert world.handle([record]) == [Done()]
    assert world.first.offered == []
    [row] = world.deliveries.rows.values()
    due = asyncio.run(_due(world.deliveries))
    assert due == [row]


async def _due(store: FakeDeliveryStore) -> list[Delivery]:
    found: list[Delivery] = []
    for bucket in range(16):
        found += (await store.due(bucket, now=NOW + LEASE, after=None, limit=10)).deliveries
    return found
