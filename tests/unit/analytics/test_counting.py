"""The handlers between the log, the book and the stores."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import REGISTRY

from analytics.domain.book import Book, Write
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import HOUR_MS
from analytics.domain.rows import Applied, RowImage
from analytics.handlers.burial import Burial
from analytics.handlers.counting import ClickCounter
from analytics.loops import EndWatch, Flusher, FlushLoop
from chassis.errors import Unavailable
from chassis.kafka.record import TopicPartition
from contracts.link import LinkKey
from tests.fakes.analytics_clicks import T0_MS, click, record
from tests.fakes.analytics_ports import FakeCheckpoints, FakeDeadLetters, FakeLog, FakePeers, FakeRowStore
from tests.fakes.kafka_time import START, VirtualClock, run_virtual

PLACE = TopicPartition("clicks", 0)
KEY = LinkKey("aB3dE7x")
HOURS = range(T0_MS // HOUR_MS - 1, T0_MS // HOUR_MS + 2)


@dataclass
class Owner:
    """A process' worth of parts on fakes."""

    rows: FakeRowStore = field(default_factory=FakeRowStore)
    checkpoints: FakeCheckpoints = field(default_factory=FakeCheckpoints)
    log: FakeLog = field(default_factory=FakeLog)
    peers: FakePeers = field(default_factory=FakePeers)
    dead_letters: FakeDeadLetters = field(default_factory=FakeDeadLetters)
    book: Book = field(default_factory=lambda: Book(rows_max=100, dirty_max=3))

    def __post_init__(self) -> None:
        self.flusher = Flusher(self.book, rows=self.rows, checkpoints=self.checkpoints, rows_per_s_max=25_000)
        self.counter = ClickCounter(
            self.book,
            rows=self.rows,
            checkpoints=self.checkpoints,
            log=self.log,
            flush=self.flusher.flush_now,
            burial=Burial(self.dead_letters, group="g", clock=VirtualClock()),
            topic="clicks",
            group="g",
        )

    async def count(self, *keys: str, first: int = 0) -> None:
        """Handle a click on each of these links."""
        await self.counter.handle([record(first + place, click(key)) for place, key in enumerate(keys)])


@pytest.mark.rule("A1", "C1")
def test_a_failed_load_folds_nothing() -> None:
    """Rows cannot be loaded: Unavailable, and the same records may come again; then they count once."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        owner.rows.away = True
        with pytest.raises(Unavailable):
            await owner.count(KEY, KEY)
        assert not owner.book.read(KEY, 0, HOURS)

        owner.rows.away = False
        await owner.count(KEY, KEY)

        assert owner.book.read(KEY, 0, HOURS)[0].human == 2

    asyncio.run(scenario())


@pytest.mark.rule("A6")
def test_too_many_dirty_rows_pause_the_counting() -> None:
    """At the limit records are not taken until a flush has made room."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        await owner.count("a", "b", "c")
        with pytest.raises(Unavailable):
            await owner.count("d", first=3)

        await owner.flusher.flush(0)
        await owner.count("d", first=3)

        assert owner.book.dirty == 1

    asyncio.run(scenario())


@pytest.mark.rule("A4")
def test_the_position_is_the_checkpoints() -> None:
    """On assignment the offset is that of the stored state; without one the partition is left out: from its start."""

    async def scenario() -> None:
        owner = Owner(log=FakeLog(2))
        owner.log.times[1] = dict.fromkeys(range(50), T0_MS)
        await owner.checkpoints.save(Checkpoint(1, offset=41, time_ms=T0_MS))

        position = await owner.counter.assigned([PLACE, TopicPartition("clicks", 1)])

        assert position == {TopicPartition("clicks", 1): 41}

    asyncio.run(scenario())


@pytest.mark.rule("A8")
def test_a_log_created_anew_begins_at_its_start() -> None:
    """The log ends before the checkpoint: a new epoch is stored, and counting goes on at offset 0, onto the rows."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        await owner.count(KEY, KEY, KEY)
        assert await owner.counter.revoked([PLACE]) == {PLACE: 3}
        owner.log.times[0] = {0: T0_MS + 5}

        position = await owner.counter.assigned([PLACE])
        await owner.count(KEY)

        assert position == {PLACE: 0}
        assert owner.book.read(KEY, 0, HOURS)[0].human == 4

    asyncio.run(scenario())


def test_revoked_flushes_and_forgets() -> None:
    """What was counted is in the table, the position is told, and nothing of the partition is kept; else it is told."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        await owner.count("a", "b")
        assert await owner.counter.checkpoint() == {PLACE: 0}

        assert await owner.counter.revoked([PLACE]) == {PLACE: 2}

        assert len(owner.rows.rows) == 2
        assert not owner.book.held
        assert await owner.counter.revoked([PLACE]) == {}
        await owner.counter.assigned([PLACE])
        await owner.count("c", first=2)
        owner.rows.away = True
        with pytest.raises(Unavailable):
            await owner.counter.revoked([PLACE])
        assert not owner.book.held

    asyncio.run(scenario())


@pytest.mark.rule("C1")
def test_what_is_no_click_moves_the_position() -> None:
    """Garbage is buried once, events of another type are skipped; neither is read again after a restart."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        good = record(2, click(KEY))
        garbage = replace(good, offset=0, value=b"\xff")
        other = replace(good, offset=1, headers=(("ce_type", b"shortener.events.v1.SpoolPainted"),))

        owner.rows.away = True
        with pytest.raises(Unavailable):
            await owner.counter.handle([garbage, other, good])
        assert owner.dead_letters.letters == []  # no attempt is burnt while the database is away
        owner.rows.away = False
        owner.dead_letters.away = True
        with pytest.raises(Unavailable):
            await owner.counter.handle([garbage, other, good])
        owner.dead_letters.away = False
        await owner.counter.handle([garbage, other, good])

        assert [(letter.record, letter.verdict.reason) for letter in owner.dead_letters.letters] == [
            (garbage, "undecodable")
        ]
        assert await owner.counter.revoked([PLACE]) == {PLACE: 3}
        assert [row.human for row in owner.rows.links.values()] == [1]

    run_virtual(scenario())


@pytest.mark.rule("C1")
def test_a_link_key_that_no_table_takes_is_content_at_fault() -> None:
    """A click on a key that could never be a row's is buried, and the clicks behind it are counted."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])

        await owner.count("k" * 481, KEY, "k" * 480)

        assert [letter.record.offset for letter in owner.dead_letters.letters] == [0]
        assert owner.book.read(KEY, 0, HOURS)[0].human == 1
        assert owner.book.read(LinkKey("k" * 480), 0, HOURS)[0].human == 1

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_too_many_dead_letters_stop_the_counting() -> None:
    """While the breaker is open nothing is counted; once a person has resumed the group it goes on."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        owner.dead_letters.open_breaker = True
        with pytest.raises(Unavailable, match="resumed"):
            await owner.count(KEY)
        owner.dead_letters.person_came = True
        with pytest.raises(Unavailable, match="resumed"):
            await owner.count(KEY)  # looked a moment ago
        await VirtualClock().sleep(6)
        await owner.count(KEY)

        assert owner.book.read(KEY, 0, HOURS)[0].human == 1

    run_virtual(scenario())


@pytest.mark.rule("A4")
def test_a_round_that_fails_leaves_the_checkpoint() -> None:
    """Rows that could not be written: no checkpoint; the next round stores both."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        await owner.count("a", "b")
        owner.rows.away = True
        with pytest.raises(Unavailable):
            await owner.flusher.flush(0)
        assert owner.checkpoints.checkpoints == {}

        owner.rows.away = False
        await owner.flusher.flush(0)

        assert owner.checkpoints.checkpoints[1, 0].offset == 2
        assert await owner.counter.checkpoint() == {PLACE: 2}

    asyncio.run(scenario())


async def _until(condition: Callable[[], bool], clock: VirtualClock, *, seconds: float) -> None:
    deadline = clock.monotonic() + seconds
    while not condition():
        assert clock.monotonic() < deadline, "not in time"
        await clock.sleep(0.05)


@pytest.mark.rule("A6", "C1")
def test_the_loop_flushes_within_the_interval_and_goes_on_after_a_fault() -> None:
    """Dirty rows are stored within an interval; a database that was away gets them seconds after it is back."""

    async def scenario() -> None:
        owner, clock, stop = Owner(book=Book(rows_max=100, dirty_max=4)), VirtualClock(), asyncio.Event()
        await owner.counter.assigned([PLACE])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(FlushLoop(owner.book, owner.flusher, interval_s=60, clock=clock).run(stop))
            await clock.sleep(5)
            await owner.count("a")
            await _until(lambda: len(owner.rows.rows) == 1, clock, seconds=60)
            await owner.count("b", first=1)
            owner.rows.away = True
            await clock.sleep(180)
            assert len(owner.rows.rows) == 1
            owner.rows.away = False
            await _until(lambda: len(owner.rows.rows) == 2, clock, seconds=2)
            await owner.count("c", "d", first=2)  # half of what may be dirty
            await _until(lambda: len(owner.rows.rows) == 4, clock, seconds=1)
            stop.set()

    run_virtual(scenario())


@pytest.mark.rule("A6")
def test_a_database_that_is_away_is_not_asked_ten_times_a_second() -> None:
    """Also while too much is dirty: it is tried about once a second."""

    async def scenario() -> None:
        owner, clock, stop = Owner(book=Book(rows_max=100, dirty_max=4)), VirtualClock(), asyncio.Event()
        await owner.counter.assigned([PLACE])
        await owner.count("a", "b")  # half of what may be dirty
        owner.rows.away = True
        tries = failures()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(FlushLoop(owner.book, owner.flusher, interval_s=60, clock=clock).run(stop))
            await clock.sleep(20)
            stop.set()
        assert 10 <= failures() - tries <= 25

    def failures() -> float:
        return REGISTRY.get_sample_value("analytics_flush_failures_total") or 0.0

    run_virtual(scenario())


@pytest.mark.rule("A7")
def test_a_quiet_partition_is_counted_until_now() -> None:
    """Each second the end of the log is looked at; while the broker is away the moment stands still."""

    async def scenario() -> None:
        owner, clock, stop = Owner(), VirtualClock(), asyncio.Event()
        await owner.counter.assigned([PLACE])
        start_ms = int(START.timestamp() * 1000)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(EndWatch(owner.book, owner.log, clock=clock).run(stop))
            await clock.sleep(10.5)
            assert owner.book.counted_until_ms(0) == start_ms + 10_000
            owner.log.away = True
            await clock.sleep(10)
            assert owner.book.counted_until_ms(0) == start_ms + 10_000
            stop.set()

    run_virtual(scenario())


def some_row(human: int, offset: int) -> RowImage:
    """A row of the link, with that much in it."""
    owner = Owner()
    owner.book.assign(Checkpoint(0))
    asyncio.run(owner.counter.handle([record(0, click(KEY))]))
    return replace(owner.book.read(KEY, 0, HOURS)[0], human=human, applied=Applied(1, offset))


@pytest.mark.rule("A4")
def test_a_round_that_lost_its_partition_stores_no_checkpoint() -> None:
    """Rows forgotten in the middle of a round may not be in the table: its checkpoint would pass over their clicks."""

    async def scenario() -> None:
        owner = Owner(book=Book(rows_max=1000, dirty_max=500))
        await owner.counter.assigned([PLACE])
        await owner.count(*[f"key{number}" for number in range(160)])  # seven batches, four at a time
        store = owner.rows.store

        async def store_and_lose(writes: Sequence[Write]) -> Sequence[bool]:
            taken = await store(writes)
            owner.book.assign(Checkpoint(0))  # taken away and given back, before the other batches
            return taken

        owner.rows.store = store_and_lose  # type: ignore[method-assign]  # the moment in between
        await owner.flusher.flush(0)

        assert len(owner.rows.rows) == 100
        assert not owner.checkpoints.checkpoints

    run_virtual(scenario())
