"""The counts of this moment: whose memory is asked, and what the table adds to it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import DAY_HOURS, HOUR_MS, Day, TopId
from analytics.domain.rows import Applied, RowImage, TopImage
from analytics.domain.stats import merge
from analytics.domain.top import Ranking, days_of, rank
from analytics.handlers.owners import Owners
from analytics.handlers.present import Found, Present
from analytics.ports import OwnedRows, OwnedTops
from chassis.clock import Clock
from chassis.errors import Internal, Unavailable
from contracts.link import LinkKey, UserId
from contracts.topics import ANALYTICS_EVENTS, click_partition
from tests.fakes.analytics_clicks import T0_MS, arrival, click
from tests.fakes.analytics_ports import FakeCheckpoints, FakeLog, FakePeers, FakeRowStore
from tests.fakes.kafka_time import VirtualClock, run_virtual

KEY = LinkKey("aB3dE7x")
ALICE = UserId("alice")
T0 = T0_MS // HOUR_MS
HOURS = range(T0 - 1, T0 + 2)
TODAY = Day(T0 // DAY_HOURS)
DAYS = range(TODAY - 1, TODAY + 1)


@dataclass
class Process:
    """One that is asked, on fakes."""

    log: FakeLog = field(default_factory=FakeLog)
    rows: FakeRowStore = field(default_factory=FakeRowStore)
    checkpoints: FakeCheckpoints = field(default_factory=FakeCheckpoints)
    peers: FakePeers = field(default_factory=FakePeers)
    book: Book = field(default_factory=lambda: Book(rows_max=100, dirty_max=100))
    clock: Clock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        owners = Owners(self.book, log=self.log, address="us:1", clock=self.clock)
        self.present = Present(self.book, rows=self.rows, checkpoints=self.checkpoints, owners=owners, peers=self.peers)

    async def own(self, partition: int = 0, *, clicks: int = 0, key: str = KEY, user: str = "") -> None:
        """Own a partition from here on, and count clicks there."""
        found = await self.checkpoints.load([partition])
        self.book.assign(found.get(partition, Checkpoint(partition)))
        first = found[partition].offset if found else 0
        arrivals = [arrival(first + n, click(key, user=user), partition=partition) for n in range(clicks)]
        missing = self.book.missing(arrivals)
        self.book.admit(missing, await self.rows.load(missing))
        self.book.fold(arrivals)


def some_row(human: int, offset: int) -> RowImage:
    """A version of the row of KEY."""
    process = Process()
    asyncio.run(process.own(clicks=1))
    return replace(process.book.read(KEY, 0, HOURS)[0], human=human, applied=Applied(1, offset))


def top_row(links: dict[str, int], offset: int, *, partition: int = 0, day: int = TODAY) -> TopImage:
    """A version of a row of Alice's top links."""
    return TopImage(TopId(partition, ALICE, Day(day)), Applied(1, offset), links)


@pytest.mark.rule("A7")
def test_the_owner_is_asked_wherever_it_is() -> None:
    """Ours: from memory. Another's: by its address, once more when it has just changed. Nobody's or dead: the table,
    counted until its checkpoint.
    """
    stored, theirs = some_row(3, 7), some_row(5, 9)

    async def read(process: Process) -> Found:
        return await process.present.read(KEY, HOURS)

    async def scenario() -> None:
        process = Process()
        process.rows.rows[stored.id] = stored
        assert await read(process) == Found([stored], 0)  # nobody has ever counted
        await process.checkpoints.save(Checkpoint(0, offset=8, time_ms=T0_MS))
        assert await read(process) == Found([stored], T0_MS)  # nobody owns it now

        process.log.owners[0] = "them:2"
        process.peers.answers["them:2"] = OwnedRows([theirs], T0_MS + 5)
        assert await read(process) == Found([theirs], T0_MS + 5)
        process.peers.away = True
        assert await read(process) == Found([stored], T0_MS)
        process.peers.away = False
        process.peers.answers["them:2"] = None
        assert await read(process) == Found([stored], T0_MS)
        assert process.log.asked_fresh > 0

        await process.own(clicks=1)
        (ours,) = process.book.read(KEY, 0, HOURS)
        assert ours.human == 4
        assert await read(process) == Found([ours], T0_MS)

    run_virtual(scenario())


@pytest.mark.rule("A7")
def test_an_owner_that_fails_is_replaced_by_the_table() -> None:
    """One of another release, which does not know the question, or one that is broken: the table answers without it."""
    stored, top = some_row(3, 7), top_row({"a": 2}, 7)

    async def scenario() -> None:
        process = Process()
        process.rows.rows |= {stored.id: stored, top.id: top}
        await process.checkpoints.save(Checkpoint(0, offset=8, time_ms=T0_MS))
        process.log.owners[0] = "them:2"
        process.peers.failure = Internal("internal", "A process failed.")

        assert await process.present.read(KEY, HOURS) == Found([stored], T0_MS)
        assert (await process.present.read_tops(ALICE, DAYS)).rows == [top]

    run_virtual(scenario())


@pytest.mark.rule("A7")
def test_a_row_that_leaves_memory_while_it_is_asked_for_is_found_in_the_table() -> None:
    """The owner is asked first: were it the table, a row that is flushed between the two questions is in neither
    answer."""
    moving = some_row(5, 9)

    async def scenario() -> None:
        process = Process()
        process.log.owners[0] = "them:2"
        process.peers.answers["them:2"] = OwnedRows([moving], T0_MS)
        plain_peer, plain_table = process.peers.read, process.rows.read

        def flushed() -> None:  # right behind the first question, whichever that is
            process.rows.rows[moving.id] = moving
            process.peers.answers["them:2"] = OwnedRows([], T0_MS)

        async def ask_peer(owner: str, key: LinkKey, partition: int, hours: range) -> OwnedRows | None:
            answer = await plain_peer(owner, key, partition, hours)
            flushed()
            return answer

        async def ask_table(key: LinkKey, hours: range) -> Sequence[RowImage]:
            rows = await plain_table(key, hours)
            flushed()
            return rows

        process.peers.read, process.rows.read = ask_peer, ask_table  # type: ignore[method-assign]  # the moment between
        found = await process.present.read(KEY, HOURS)

        assert [row.human for row in found.rows] == [5]

    run_virtual(scenario())


@pytest.mark.rule("A7")
def test_while_the_topic_grows_both_owners_are_asked() -> None:
    """Gateways send by the count they were made for until they are replaced: the clicks of a link stand in the memory
    of two owners then, counted until the older of their moments; without one of the owners until its checkpoint.
    """
    before, after = (click_partition(KEY, count) for count in (ANALYTICS_EVENTS.partitions, 1000))
    one = some_row(5, 9)
    two = replace(some_row(7, 3), id=one.id._replace(partition=after))
    one = replace(one, id=one.id._replace(partition=before))

    async def scenario() -> None:
        process = Process(log=FakeLog(1000))
        process.log.owners |= {before: "them:2", after: "them:3"}
        process.peers.answers |= {"them:2": OwnedRows([one], T0_MS + 9), "them:3": OwnedRows([two], T0_MS + 5)}

        assert before != after
        found = await process.present.read(KEY, HOURS)
        assert (sorted(row.human for row in found.rows), found.counted_until_ms) == ([5, 7], T0_MS + 5)

        process.peers.answers["them:3"] = None
        await process.checkpoints.save(Checkpoint(after, offset=2, time_ms=T0_MS - 1))
        found = await process.present.read(KEY, HOURS)
        assert ([row.human for row in found.rows], found.counted_until_ms) == ([5], T0_MS - 1)

    run_virtual(scenario())


@pytest.mark.rule("A7", "C1")
def test_a_broker_that_is_away_does_not_hide_the_table() -> None:
    """Once the partitions are known, counts are answered without the broker; before, it is said that it is away."""

    async def scenario() -> None:
        process = Process()
        process.log.away = True
        with pytest.raises(Unavailable):
            await process.present.read(KEY, HOURS)
        process.log.away = False
        await process.clock.sleep(1)
        await process.present.read(KEY, HOURS)
        process.log.away = True
        assert (await process.present.read(KEY, HOURS)).rows == []

        process.rows.away = True
        with pytest.raises(Unavailable):
            await process.present.read(KEY, HOURS)

    run_virtual(scenario())


@pytest.mark.rule("A7", "C1")
def test_a_broker_that_hangs_is_waited_for_once_and_shortly() -> None:
    """A gateway waits for a second: the answer comes within it, also from an owner that was known before, for without a
    broker no partition changes hands; and the next questions do not wait at all.
    """
    theirs = some_row(5, 9)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        process = Process()
        process.log.owners[0] = "them:2"
        process.peers.answers["them:2"] = OwnedRows([theirs], T0_MS)
        await process.present.read(KEY, HOURS)

        process.log.hangs = True
        took = []
        for _ in range(3):
            began = loop.time()
            assert await process.present.read(KEY, HOURS) == Found([theirs], T0_MS)
            assert rank((await process.present.read_tops(ALICE, DAYS)).rows).links == []
            took.append(loop.time() - began)
        assert took[0] <= 0.5
        assert took[1:] == [0, 0]

    run_virtual(scenario())


@pytest.mark.rule("A7")
def test_top_links_are_asked_of_every_owner() -> None:
    """An account's links are spread over all partitions: ours from memory, each other owner once, nobody's from the
    table, of each row the newer version and never the sum; counted until the oldest of these moments.
    """

    async def scenario() -> None:
        process = Process(log=FakeLog(4))
        await process.own(0, clicks=2, key="ours", user=ALICE)
        process.log.owners |= {0: "us:1", 1: "them:2", 2: "them:2"}  # nobody has the last
        newer = top_row({"theirs": 9, "both": 1}, 90, partition=1)
        process.peers.tops["them:2"] = {1: OwnedTops([newer], T0_MS + 7), 2: OwnedTops([], T0_MS + 8)}
        for row in (
            top_row({"theirs": 4}, 40, partition=1),  # an older version of what its owner has
            top_row({"flushed": 5}, 50, partition=2),
            top_row({"old": 3, "*": 2}, 30, partition=3, day=TODAY - 1),
        ):
            process.rows.rows[row.id] = row
        await process.checkpoints.save(Checkpoint(3, offset=31, time_ms=T0_MS - 100))

        found = await process.present.read_tops(ALICE, DAYS)

        expected = [("theirs", 9), ("flushed", 5), ("old", 3), ("ours", 2), ("both", 1)]
        assert rank(found.rows) == Ranking(expected, 2)  # type: ignore[arg-type]  # plain text for keys
        assert found.counted_until_ms == T0_MS - 100
        assert process.peers.asked == ["them:2"]  # one question for its two partitions, and none again

    run_virtual(scenario())


@pytest.mark.rule("A7")
def test_top_links_without_an_owner_come_from_the_table() -> None:
    """An instance that is away, or says that the partition is not its own, is asked again freshly, then left out."""

    async def scenario() -> None:
        process = Process()
        process.log.owners[0] = "them:2"
        row = top_row({"a": 1}, 5)
        process.rows.rows[row.id] = row
        for away in (False, True):
            process.peers.away, process.peers.asked = away, []
            found = await process.present.read_tops(ALICE, DAYS)
            assert (rank(found.rows).links, found.counted_until_ms) == ([("a", 1)], 0)
            assert process.peers.asked == ["them:2", "them:2"]

    run_virtual(scenario())


def test_the_days_of_hours() -> None:
    """Each day that an hour of the range is in, once."""
    midnight = TODAY * DAY_HOURS

    assert days_of(range(midnight, midnight + 24)) == range(TODAY, TODAY + 1)
    assert days_of(range(midnight - 1, midnight + 25)) == range(TODAY - 1, TODAY + 2)
    assert days_of(range(0)) == range(0)


@pytest.mark.rule("A7")
def test_rows_of_top_links_are_never_added() -> None:
    """The version of the owner holds what the table's does."""
    assert merge([top_row({"a": 3}, 9)], [top_row({"a": 2}, 4)]) == [top_row({"a": 3}, 9)]
