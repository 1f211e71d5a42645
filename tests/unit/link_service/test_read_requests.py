"""Requests to warm the cache, on fakes: what is warmed, what is dropped, what waits for whom."""

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.kafka.record import Done, Outcome, Record, Rejected
from contracts.link import LinkKey
from link_service.handlers.read_requests import ReadRequests
from shortener.events.v1.read_events_pb2 import ReadRequested
from tests.fakes.link_events import make_link
from tests.fakes.link_service_world import LinkWorld, play

KEY = LinkKey("abc-1")
TYPE = ReadRequested.DESCRIPTOR.full_name


async def request(world: LinkWorld, *keys: str, age_s: float = 0) -> list[Record]:
    """Records that the broker stored so long ago, by Redis' clock."""
    at = await world.cache.now() - timedelta(seconds=age_s)
    return [record(key, at_ms=int(at.timestamp() * 1000)) for key in keys]


def record(key: str, *, at_ms: int = 0, value: bytes | None = None, kind: str = TYPE) -> Record:
    """A record of read-requests."""
    data = ReadRequested(link_key=key).SerializeToString() if value is None else value
    return Record("read-requests", 0, 0, at_ms, key.encode(), data, (("ce_type", kind.encode()),))


async def handle(world: LinkWorld, records: list[Record]) -> list[Outcome]:
    """What the handler makes of a batch."""
    return await ReadRequests(world.reader, world.cache)(records)


def counted(outcome: str) -> float:
    """How many requests had this outcome so far."""
    return REGISTRY.get_sample_value("read_requests_total", {"outcome": outcome}) or 0.0


@pytest.mark.rule("C6", "R2")
def test_a_request_makes_the_next_try_warm() -> None:
    """C6: what the table has is in Redis afterwards; links of a batch are read together."""

    async def scenario(world: LinkWorld) -> None:
        keys = [f"abc-{number}" for number in range(100)]
        world.table.meta |= {LinkKey(key): make_link(key) for key in keys[:-1]}
        before = counted("filled"), counted("absent"), counted("warm")

        outcomes = await handle(world, await request(world, *keys))
        again = await handle(world, await request(world, *keys[:2]))

        assert [*outcomes, *again] == [Done()] * 102
        assert all(world.redis.value(LinkKey(key)) == world.table.meta[LinkKey(key)] for key in keys[:-1])
        assert [len(batch) for batch in world.table.batches] == [100]
        assert (counted("filled"), counted("absent"), counted("warm")) == (before[0] + 99, before[1] + 1, before[2] + 2)

    play(scenario)


@pytest.mark.rule("C6")
def test_a_request_older_than_a_minute_is_dropped_whatever_this_clock_says() -> None:
    """C6: by the broker's time and Redis' time; the process' own clock, which may be a day wrong, is not asked."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta |= {LinkKey(key): make_link(key) for key in ("old-1", "new-1")}
        before = counted("stale")
        records = [*await request(world, "old-1", age_s=60.5), *await request(world, "new-1", age_s=59.5)]

        assert await handle(world, records) == [Done(), Done()]

        assert world.table.batches == [("new-1",)]
        assert world.redis.value(LinkKey("old-1")) is None
        assert counted("stale") == before + 1

    play(scenario)


@pytest.mark.rule("C6", "C1")
def test_what_cannot_be_read_is_rejected_and_harms_no_other() -> None:
    """C1: only what a record says is held against it; its neighbours are warmed."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        at_ms = int((await world.cache.now()).timestamp() * 1000)
        good = record(KEY, at_ms=at_ms)
        other = ReadRequested(link_key="other").SerializeToString()
        bad = [
            record("bad-1", at_ms=at_ms, value=b"\xff\xff"),
            record("bad-2", at_ms=at_ms, kind="shortener.events.v1.LinkCreated"),
            record("bad-3", at_ms=at_ms, value=other),
            record("not a code", at_ms=at_ms),
            record("evil.example/../abc", at_ms=at_ms),
        ]

        outcomes = await handle(world, [*bad, good])

        assert outcomes[-1] == Done()
        assert [outcome.reason for outcome in outcomes[:-1] if isinstance(outcome, Rejected)] == [
            "undecodable", "undecodable", "validation", "validation", "validation",
        ]  # fmt: skip
        assert world.table.batches == [(KEY,)]
        assert world.redis.value(KEY) is not None

    play(scenario)


@pytest.mark.rule("C6", "C1")
@pytest.mark.parametrize("away", ["redis", "table"])
def test_without_a_dependency_nothing_is_done_with(away: str) -> None:
    """C1: the batch comes again; those that could be warmed are warm by then. Nothing is answered from the table
    without Redis: it could not be kept."""

    async def scenario(world: LinkWorld) -> None:
        world.table.meta[KEY] = make_link(KEY)
        present = LinkKey((await world.create()).short_code)
        records = await request(world, KEY, present)
        (world.redis if away == "redis" else world.table).away = True

        with pytest.raises(Unavailable):
            await handle(world, records)
        assert world.table.batches == []

        world.redis.away = world.table.away = False
        assert await handle(world, records) == [Done(), Done()]
        assert world.redis.value(KEY) == world.table.meta[KEY]

    play(scenario)
