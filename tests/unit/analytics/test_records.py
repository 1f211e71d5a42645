"""Records of many clicks, of totals and of dead letters, from the log to the book."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pytest

from analytics.domain.book import Book
from analytics.domain.clicks import HOUR_MS, AnyId
from analytics.domain.holding import Accepted, Tally
from analytics.domain.rows import AnyImage
from analytics.domain.sequences import Spool
from analytics.handlers.burial import Burial
from analytics.handlers.counting import ClickCounter
from analytics.loops import Flusher
from chassis.errors import Unavailable
from chassis.kafka.dlq import DeadLetter
from chassis.kafka.record import Record, Rejected, TopicPartition
from contracts.link import LinkKey
from tests.fakes.analytics_clicks import SPOOL, T0_MS, batch_of, click, record, totals_record
from tests.fakes.analytics_ports import FakeCheckpoints, FakeDeadLetters, FakeLog, FakeRowStore
from tests.fakes.kafka_time import VirtualClock, run_virtual

PLACE = TopicPartition("clicks", 0)
KEY = LinkKey("aB3dE7x")
HOURS = range(T0_MS // HOUR_MS - 1, T0_MS // HOUR_MS + 2)


@dataclass
class Owner:
    """The counting half of a process, on fakes."""

    rows: FakeRowStore = field(default_factory=FakeRowStore)
    checkpoints: FakeCheckpoints = field(default_factory=FakeCheckpoints)
    log: FakeLog = field(default_factory=FakeLog)
    dead_letters: FakeDeadLetters = field(default_factory=FakeDeadLetters)
    told: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = Book(rows_max=10_000, dirty_max=10_000)
        flusher = Flusher(self.book, rows=self.rows, checkpoints=self.checkpoints, rows_per_s_max=25_000)
        self.counter = ClickCounter(
            self.book,
            rows=self.rows,
            checkpoints=self.checkpoints,
            log=self.log,
            flush=flusher.flush_now,
            burial=Burial(self.dead_letters, group="g", clock=VirtualClock()),
            topic="clicks",
            group="g",
            tell=self.told.append,
        )


@pytest.mark.rule("A2", "S4")
def test_what_is_new_is_told_in_the_turn_it_is_counted() -> None:
    """Those who watch hear of each new click once, record by record, also when a record repeats some."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        one, two, three = (click(name, labels=("c", "r", "b", "o", "d")) for name in ("one", "two", "three"))
        await owner.counter.handle([record(0, one, two, spool="1"), record(1, two, three, spool="1", first=2)])

        (tally,) = owner.told
        assert tally.accepted == [Accepted(0, [one, two]), Accepted(0, [three])]

    run_virtual(scenario())


def replayed(letter: DeadLetter, offset: int) -> Record:
    """The record of a letter as `linkmesh dlq replay` sends it, where the broker has put it now."""
    old = letter.record
    of = f"{old.partition}/{old.offset}/{old.timestamp_ms}".encode()
    headers = (*old.headers, ("replay_for", b"g"), ("replay_of", of))
    return replace(old, offset=offset, timestamp_ms=old.timestamp_ms + 99, headers=headers)


@pytest.mark.rule("A9", "A10")
def test_a_replayed_letter_counts_once() -> None:
    """A record that was buried for a fault of ours: what follows it is no gap; once we understand it, its replay counts
    although its sequences lie far behind, and a second replay does not.
    """

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        good = record(1, click(KEY), click(KEY), spool="1", first=2)
        newer = replace(good, value=batch_of([click(KEY), click("")], SPOOL + "1", 2).SerializeToString())
        await owner.counter.handle([record(0, click(KEY), spool="1"), newer])
        await owner.counter.handle([record(2, click(KEY), spool="1", first=4)])
        assert [letter.record for letter in owner.dead_letters.letters] == [newer]
        spool = owner.book.accounts(0).spools[SPOOL + "1"]
        assert (spool.last, spool.counted, spool.buried, spool.gaps) == (4, 2, 2, 0)

        letter = replace(owner.dead_letters.letters[0], record=good)  # as a version that understands it reads it
        await owner.counter.handle([replayed(letter, 3)])
        await owner.counter.handle([replayed(letter, 4)])

        assert owner.book.read(KEY, 0, HOURS)[0].human == 4
        spool = owner.book.accounts(0).spools[SPOOL + "1"]
        assert (spool.last, spool.counted, spool.buried, spool.gaps) == (4, 4, 0, 0)
        assert spool.balanced

    run_virtual(scenario())


@pytest.mark.rule("A9")
def test_a_letter_that_was_replayed_is_known_by_the_next_owner() -> None:
    """What was replayed is in the checkpoint: a click that came without a spool is not counted by another process."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        letter = DeadLetter(record(0, click(KEY)), Rejected("undecodable"), 1, 0)
        await owner.counter.handle([replayed(letter, 7)])
        await owner.counter.revoked([PLACE])
        other = Owner(rows=owner.rows, checkpoints=owner.checkpoints, log=owner.log)
        owner.log.times[0] = {7: T0_MS + 99, 8: T0_MS + 99}
        await other.counter.assigned([PLACE])
        await other.counter.handle([replayed(letter, 8), record(9, click(KEY))])

        assert other.book.read(KEY, 0, HOURS)[0].human == 2

    run_virtual(scenario())


@pytest.mark.rule("A6")
def test_a_crowd_of_records_is_folded_in_parts() -> None:
    """Thousands of clicks at once leave others their turn, and a database that goes away in between loses nothing and
    counts nothing twice.
    """

    class Fickle(FakeRowStore):
        async def load(self, row_ids: Collection[AnyId]) -> Mapping[AnyId, AnyImage]:
            found = await super().load(row_ids)
            self.away = self.loads == 2
            return found

    async def scenario() -> None:
        owner = Owner(rows=Fickle())
        await owner.counter.assigned([PLACE])
        turns = 0
        crowd = [
            record(number, *[click(f"k{number}") for _ in range(500)], spool="1", first=number * 500 + 1)
            for number in range(160)
        ]

        async def watch() -> None:
            nonlocal turns
            while not owner.book.is_folded(0, 159):
                turns += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            with pytest.raises(Unavailable):
                await owner.counter.handle(crowd)
            assert owner.book.is_folded(0, 0)
            assert not owner.book.is_folded(0, 159)
            owner.rows.away = False
            await owner.counter.handle(crowd)

        assert turns >= 5
        rows = [row for number in range(160) for row in owner.book.read(LinkKey(f"k{number}"), 0, HOURS)]
        assert [row.human for row in rows] == [500] * 160

    asyncio.run(scenario())


@pytest.mark.rule("S8")
def test_totals_move_the_position_and_count_nothing() -> None:
    """A spool's own books are kept for reconciliation."""

    async def scenario() -> None:
        owner = Owner()
        await owner.counter.assigned([PLACE])
        await owner.counter.handle([totals_record(0, spool="1", recorded=7, dropped=2, closed=True)])

        assert await owner.counter.revoked([PLACE]) == {PLACE: 1}
        stored = owner.checkpoints.checkpoints[1, 0].accounts
        assert stored.spools == {SPOOL + "1": Spool(recorded=7, dropped=2, closed=True)}
        assert not owner.rows.rows

    run_virtual(scenario())
