"""The relay on fakes, in virtual time: order, exact trimming, one leader, and the ways in which its world fails."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.kafka.record import Message
from contracts.topics import LINKS_EVENTS
from link_service.loops.relay import finished_through
from link_service.ports import Position, QueuedEntry
from tests.fakes.kafka import FakeSender
from tests.fakes.kafka_time import run_virtual
from tests.fakes.link_cache import FakeOutbox
from tests.unit.relay.worlds import Gate, LateSender, PausedOutbox, RelayWorld, relaying

CODES = ("ada", "bob", "cy", "dan")


@pytest.mark.rule("O1", "P1")
def test_events_arrive_in_order_once_and_the_outbox_is_trimmed() -> None:
    """O1: without faults each event arrives exactly once, in order, with its headers, and leaves the outbox."""

    async def main() -> None:
        world = RelayWorld()

        async def scenario() -> None:
            for _ in range(50):
                for code in CODES:
                    await world.write(code)
            await world.until(lambda: world.waiting() == 0)

        await relaying([world.relay()], scenario)
        assert world.arrived() == world.written
        record = world.broker.records(LINKS_EVENTS.name)[0]
        assert record.header("ce_subject") == record.key.decode()
        assert record.header("ce_type") == "shortener.events.v1.LinkCreated"

    run_virtual(main())


@pytest.mark.rule("O1")
def test_an_event_is_sent_as_soon_as_it_is_written() -> None:
    """The relay waits on the streams, it does not poll: no time passes between write and send."""

    async def main() -> None:
        world = RelayWorld()

        async def scenario() -> None:
            await world.clock.sleep(60)
            written_at = world.clock.now()
            await world.write("ada")
            await world.until(lambda: world.waiting() == 0)
            (record,) = world.broker.records(LINKS_EVENTS.name)
            assert record.timestamp_ms - written_at.timestamp() * 1000 <= 1

        await relaying([world.relay()], scenario)

    run_virtual(main())


@pytest.mark.rule("O1", "P1")
def test_exactly_what_the_broker_acknowledged_is_trimmed() -> None:
    """O1: after a failed batch its acknowledged beginning is gone, and everything behind it is sent again, in order."""

    async def main() -> None:
        world = RelayWorld()
        sender = FakeSender(world.broker)
        for _ in range(5):
            await world.write("ada")
        sender.acknowledges, sender.stores = 2, 3
        left: list[int] = []

        async def scenario() -> None:
            await world.until(lambda: sender.calls == 1)
            left.append(world.waiting())
            await world.until(lambda: world.waiting() == 0)

        await relaying([world.relay(sender=sender)], scenario)
        assert left == [3]
        assert world.arrived() == {"ada": [1, 2, 3, 3, 4, 5]}

    run_virtual(main())


@pytest.mark.rule("O1", "P1", "P7")
def test_an_hour_without_kafka_keeps_everything_and_its_return_is_noticed_at_once() -> None:
    """P1, P7: the outbox grows while the broker is away, nothing is trimmed, and it drains within seconds after."""

    async def main() -> None:
        world = RelayWorld()
        world.broker.away = True

        async def scenario() -> None:
            for _ in range(60):
                await world.write("ada")
                await world.clock.sleep(60)
            assert world.waiting() == 60
            assert (await FakeOutbox(world.redis).depth()).oldest_age_s == pytest.approx(3600, abs=1)
            world.broker.away = False
            await world.until(lambda: world.waiting() == 0, within_s=10)

        await relaying([world.relay()], scenario)
        assert world.first_arrivals() == world.written

    run_virtual(main())


@pytest.mark.rule("O1", "P7")
def test_the_relay_outlives_a_redis_that_is_away() -> None:
    """P7: with Redis away the relay ends nothing and nobody; it goes on when Redis is back."""

    async def main() -> None:
        world = RelayWorld()

        async def scenario() -> None:
            await world.write("ada")
            await world.until(lambda: world.waiting() == 0)
            world.redis.away = True
            await world.clock.sleep(600)
            world.redis.away = False
            await world.write("ada")
            await world.until(lambda: world.waiting() == 0, within_s=10)

        await relaying([world.relay()], scenario)
        assert world.arrived() == world.written

    run_virtual(main())


@pytest.mark.rule("O1")
def test_an_entry_that_cannot_be_read_is_set_aside_and_stops_nobody() -> None:
    """One bad entry must not stop all events: it is kept for a person, and those behind it go on."""

    async def main() -> None:
        world = RelayWorld()
        await world.write("ada")
        bucket = next(bucket for bucket, stream in world.redis.streams.items() if stream)
        world.redis.append(bucket, b"not an entry")
        await world.write("ada")

        await relaying([world.relay()], lambda: world.until(lambda: world.waiting() == 0))

        assert [entry.data for entry in world.redis.aside] == [b"not an entry"]
        assert world.arrived() == world.written

    run_virtual(main())


@pytest.mark.rule("O1", "P7")
def test_one_relay_leads_and_another_takes_over_within_the_lease() -> None:
    """O1: of two relays one sends; when it hangs, the other goes on about three seconds later."""

    async def main() -> None:
        world = RelayWorld()
        gate = Gate()
        first, second = FakeSender(world.broker), FakeSender(world.broker)
        paused = world.relay("a", sender=first, outbox=PausedOutbox(FakeOutbox(world.redis), gate))

        async def scenario() -> None:
            await world.clock.sleep(1)
            stop_second = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(world.relay("b", sender=second).run(stop_second))
                for _ in range(20):
                    await world.write("ada")
                    await world.clock.sleep(0.5)
                assert second.calls == 0
                gate.close()
                await world.write("ada")
                await world.until(lambda: world.waiting() == 0, within_s=5)
                assert second.calls >= 1
                gate.open()
                stop_second.set()

        await relaying([paused], scenario)
        assert world.first_arrivals() == world.written

    run_virtual(main())


@pytest.mark.rule("O1", "P7")
def test_a_stopped_leader_gives_its_lease_back() -> None:
    """A restart costs no three seconds: after SIGTERM the lease is free."""

    async def main() -> None:
        world = RelayWorld()

        async def scenario() -> None:
            await world.until(lambda: world.redis.leader is not None)

        await relaying([world.relay()], scenario)

        assert world.redis.leader is None

    run_virtual(main())


PAUSES = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 20), st.floats(0.1, 12)), max_size=6)
FATES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20), st.floats(0, 12)), max_size=8)
WRITES = st.lists(st.tuples(st.floats(0, 1.5), st.sampled_from(CODES)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=150)
@given(writes=WRITES, pauses=PAUSES, fates=st.tuples(FATES, FATES))
@pytest.mark.rule("O2", "O1", "P1")
def test_first_occurrences_stay_in_order_whatever_two_relays_do(
    writes: list[tuple[float, str]],
    pauses: list[tuple[int, float, float]],
    fates: tuple[list[tuple[int, int, float]], list[tuple[int, int, float]]],
) -> None:
    """O2: leaders are paused for longer than their lease and wake up in the middle of a step, sends fail, sends of dead
    connections arrive late: every event arrives, and the first arrivals of each key are in order."""

    async def main() -> None:
        world = RelayWorld()
        gates = (Gate(), Gate())
        relays = [
            world.relay(
                name,
                sender=LateSender(world.broker, gate, fate),
                outbox=PausedOutbox(FakeOutbox(world.redis, per_stream=3), gate),
            )
            for name, gate, fate in zip("ab", gates, fates, strict=True)
        ]

        async def scenario() -> None:
            loop = asyncio.get_running_loop()
            for place, at, length in pauses:
                loop.call_later(at, gates[place].close)
                loop.call_later(at + length, gates[place].open)
            for wait_s, code in writes:
                await world.clock.sleep(wait_s)
                await world.write(code)
            await world.clock.sleep(60)  # all pauses and late arrivals are over
            await world.until(lambda: world.waiting() == 0)

        await relaying(relays, scenario)
        assert world.first_arrivals() == world.written

    run_virtual(main())


def _entry(bucket: int, number: int) -> QueuedEntry:
    return QueuedEntry(bucket, Position((number, 0)), b"")


@pytest.mark.rule("O1")
@pytest.mark.parametrize(
    ("readable", "acknowledged", "through"),
    [
        ("mmmm", 0, {}),
        ("mmmm", 1, {0: 1}),
        ("mmmm", 3, {0: 3, 1: 2}),
        ("mmmm", 4, {0: 3, 1: 4}),
        ("xmmm", 0, {0: 1}),
        ("mxmm", 0, {}),
        ("mxmm", 1, {0: 1, 1: 2}),
        ("mmmx", 3, {0: 3, 1: 4}),
        ("xxxx", 0, {0: 3, 1: 4}),
    ],
)
def test_how_far_each_bucket_may_be_trimmed(readable: str, acknowledged: int, through: dict[int, int]) -> None:
    """Never behind an unacknowledged message, not even for an entry that was set aside."""
    entries = [_entry(0, 1), _entry(1, 2), _entry(0, 3), _entry(1, 4)]
    messages = [Message("t", b"", b"") if kind == "m" else None for kind in readable]

    found = finished_through(entries, messages, acknowledged)

    assert found == {bucket: (number, 0) for bucket, number in through.items()}
