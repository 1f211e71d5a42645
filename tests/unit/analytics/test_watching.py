"""Live clicks: told as they are folded, bounded, from whoever owns the counts."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.watching import Backlog, Seats, Told
from analytics.handlers.owners import Owners
from analytics.handlers.watching import HEARTBEAT_S, OwnedWatches, Watches
from chassis.errors import Internal, ResourceExhausted, ServiceError, Unavailable
from contracts.link import LinkKey, UserId
from tests.fakes.analytics_clicks import T0_MS, arrival, click
from tests.fakes.analytics_ports import FakeLog, FakePeers
from tests.fakes.kafka_time import VirtualClock, run_virtual

KEY = LinkKey("aB3dE7x")
ALICE = UserId("alice")


class Process:
    """One instance on fakes, whose partition 0 feeds every link."""

    def __init__(self, *, watch_s: float = 900.0, seats_max: int = 4) -> None:
        self.book = Book(rows_max=1000, dirty_max=1000)
        self.owned = OwnedWatches(self.book)
        self.log, self.peers, self.clock = FakeLog(), FakePeers(), VirtualClock()
        self.watches = Watches(
            self.owned,
            owners=Owners(self.book, log=self.log, address="us:1", clock=self.clock),
            peers=self.peers,
            clock=self.clock,
            seats_max=seats_max,
            account_seats_max=2,
            watch_s=watch_s,
        )
        self._next = 0

    def own(self) -> None:
        """The partition is ours from now on."""
        self.book.assign(Checkpoint(0, offset=self._next, time_ms=T0_MS))

    def count(self, *keys: str, stored_ms: int = T0_MS) -> None:
        """A record with a click on each of these links, folded as the counter does it."""
        record = arrival(self._next, *(click(key, labels=("cDE",)) for key in keys), stored_ms=stored_ms)
        self._next += 1
        self.book.admit(self.book.missing([record]), {})
        self.owned.tell(self.book.fold([record]))

    def elsewhere(self, owner: str) -> "asyncio.Queue[Told | ServiceError | None]":
        """The partition is another's, which tells what is put here."""
        self.log.owners[0] = owner
        queue: asyncio.Queue[Told | ServiceError | None] = asyncio.Queue()
        self.peers.streams[owner] = queue
        return queue


Stream = AsyncGenerator[Told, None]


def watched(scenario: Callable[[Process, Stream], Awaitable[None]], process: Process, *, own: bool = True) -> None:
    """Runs a scenario with a watcher of KEY, who was told that the watch has begun."""

    async def main() -> None:
        if own:
            process.own()
        async with aclosing(process.watches.watch(KEY, ALICE)) as stream:
            if own:
                assert await anext(stream) == Told(counted_until_ms=T0_MS)
            await scenario(process, stream)
        async with aclosing(process.watches.watch(KEY, ALICE)), aclosing(process.watches.watch(KEY, ALICE)):
            pass  # both of the account's seats are free again

    run_virtual(main())


def test_a_backlog_keeps_the_newest_and_counts_what_it_lost() -> None:
    """Full, it pushes out the oldest; taken, it is empty and has lost nothing."""
    backlog = Backlog(3)
    clicks = [click(at_ms=T0_MS + number) for number in range(5)]
    for each in clicks:
        backlog.put(each)

    assert backlog.take() == (clicks[2:], 2)
    assert backlog.take() == ([], 0)


def test_seats_are_bounded_in_all_and_for_an_account() -> None:
    """A seat that was left can be taken again."""
    seats = Seats(total_max=3, account_max=2)

    assert [seats.take(who) for who in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    seats.leave("a")
    assert seats.take("c")
    assert not seats.take("a")


def test_clicks_are_told_as_they_are_folded() -> None:
    """All of the link's and no other's, in order; those that came while the watcher was busy come together."""

    async def scenario(process: Process, stream: Stream) -> None:
        process.count(KEY, "other", KEY, stored_ms=T0_MS + 5)
        process.count("other", KEY, stored_ms=T0_MS + 9)
        process.count("other", stored_ms=T0_MS + 11)

        told = await anext(stream)

        assert [each.key for each in told.clicks] == [KEY] * 3
        assert (told.missed, told.interrupted, told.counted_until_ms) == (0, False, T0_MS + 11)
        assert told.clicks[0].labels == ("cDE",)

    watched(scenario, Process())


def test_a_repeat_is_not_told_again() -> None:
    """A record that was folded before is no news."""

    async def scenario(process: Process, stream: Stream) -> None:
        process.count(KEY)
        process.owned.tell(process.book.fold([arrival(0, click(KEY))]))

        assert len((await anext(stream)).clicks) == 1

    watched(scenario, Process())


def test_a_slow_watcher_is_told_how_many_it_missed() -> None:
    """What waits for it is bounded: it gets the newest thousand."""

    async def scenario(process: Process, stream: Stream) -> None:
        for _ in range(150):
            process.count(*[KEY] * 10)

        told = await anext(stream)

        assert (len(told.clicks), told.missed) == (1000, 500)

    watched(scenario, Process())


def test_a_flood_is_told_at_a_readers_pace() -> None:
    """Each click that is told costs the counting and the gateway: one watcher is told a thousand a second, however many
    there are, and how many it missed.
    """

    async def scenario(process: Process, stream: Stream) -> None:
        told = missed = 0
        while process.clock.monotonic() < 10:
            for _ in range(20):
                process.count(*[KEY] * 100)
            found = await anext(stream)
            told, missed = told + len(found.clicks), missed + found.missed

        assert process.clock.monotonic() >= 10
        assert 9_000 <= told <= 12_000
        assert missed == told

    watched(scenario, Process())


def test_silence_is_told_every_ten_seconds() -> None:
    """A heartbeat has no clicks, and says until when there were none."""

    async def scenario(process: Process, stream: Stream) -> None:
        moments = [process.clock.monotonic()]
        for _ in range(3):
            process.book.seen_end(0, 0, at_ms=T0_MS + len(moments))
            told = await anext(stream)
            assert (list(told.clicks), told.counted_until_ms) == ([], T0_MS + len(moments))
            moments.append(process.clock.monotonic())

        assert [later - earlier for earlier, later in pairwise(moments)] == [HEARTBEAT_S] * 3

    watched(scenario, Process())


def test_a_watch_ends_after_its_time() -> None:
    """By itself and well, so that the watcher comes again, with a key that is looked at again."""

    async def scenario(process: Process, stream: Stream) -> None:
        heartbeats = [told async for told in stream]

        assert process.clock.monotonic() == pytest.approx(30, abs=HEARTBEAT_S)
        assert not any(told.clicks or told.interrupted for told in heartbeats)

    watched(scenario, Process(watch_s=30))


def test_another_owners_clicks_are_told_on() -> None:
    """Whoever is asked tells the same; when the reader goes, the owner's stream is closed."""

    async def scenario(process: Process, stream: Stream) -> None:
        queue = process.elsewhere("them:2")
        news = Told([click(KEY)], 3, counted_until_ms=T0_MS)
        queue.put_nowait(news)

        assert await anext(stream) == news
        assert process.peers.watching == 1
        await stream.aclose()
        assert process.peers.watching == 0

    watched(scenario, Process(), own=False)


def test_the_next_owner_is_found_and_the_interruption_told() -> None:
    """The owner stops, dies or gives the partition away: the stream goes on with the next one, ours included, and its
    first news says that something may be missing."""

    async def scenario(process: Process, stream: Stream) -> None:
        news = Told([click(KEY)], counted_until_ms=T0_MS)
        for end in (None, Unavailable("unavailable", "It stops."), None):
            queue = process.elsewhere("them:2")
            queue.put_nowait(news)
            queue.put_nowait(news)
            queue.put_nowait(end)
            first, second = await anext(stream), await anext(stream)
            assert first in (news, replace(news, interrupted=True))
            assert not second.interrupted
        process.own()
        assert await anext(stream) == Told(interrupted=True, counted_until_ms=T0_MS)
        process.count(KEY)
        assert len((await anext(stream)).clicks) == 1

    watched(scenario, Process(), own=False)


def test_an_owner_of_another_release_is_waited_for() -> None:
    """One that does not know the question is no owner; its successor is found."""

    async def scenario(process: Process, stream: Stream) -> None:
        process.elsewhere("old:1").put_nowait(Internal("internal", "A process failed."))
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(anext(stream))
            await asyncio.sleep(0.1)
            process.elsewhere("new:1").put_nowait(Told(counted_until_ms=7))
        assert first.result() == Told(counted_until_ms=7)

    watched(scenario, Process(), own=False)


def test_a_partition_that_comes_back_is_an_interruption() -> None:
    """Taken away and given back, it is gone on with from the table: clicks may have passed, and some may come again."""

    async def scenario(process: Process, stream: Stream) -> None:
        process.book.forget(0)
        process.own()

        assert await anext(stream) == Told(interrupted=True, counted_until_ms=T0_MS)

    watched(scenario, Process())


def test_nobody_counts() -> None:
    """At the start the caller is told after two seconds; a watch that has begun waits half a minute for an owner."""

    async def at_start(process: Process, stream: Stream) -> None:
        with pytest.raises(Unavailable):
            await anext(stream)
        assert 2 <= process.clock.monotonic() < 3

    async def later(process: Process, stream: Stream) -> None:
        process.book.forget(0)
        process.log.away = True
        began = process.clock.monotonic()
        with pytest.raises(Unavailable):
            await anext(stream)
        assert 30 <= process.clock.monotonic() - began < 32

    watched(at_start, Process(), own=False)
    watched(later, Process())


def test_an_account_has_so_many_watches() -> None:
    """The third is refused, another account's is not; the process has a bound of its own."""

    async def scenario(process: Process, _stream: Stream) -> None:
        second = process.watches.watch(KEY, ALICE)
        await anext(second)
        with pytest.raises(ResourceExhausted):
            await anext(process.watches.watch(KEY, ALICE))
        bobs = process.watches.watch(KEY, UserId("bob"))
        await anext(bobs)
        with pytest.raises(ResourceExhausted):
            await anext(process.watches.watch(KEY, UserId("carol")))
        for stream in (second, bobs):
            await stream.aclose()

    watched(scenario, Process(seats_max=3))


def test_without_watchers_nothing_is_kept() -> None:
    """A watcher that left is not put into memory any more."""

    async def main() -> None:
        process = Process()
        process.own()
        async with aclosing(process.owned.watch(KEY, 0)) as stream:
            await anext(stream)
            process.count(KEY)
            assert process.owned.watched == {KEY}
        assert process.owned.watched == set()
        assert [told async for told in process.owned.watch(KEY, 7)] == []  # not ours: nothing, and at once

    run_virtual(main())
