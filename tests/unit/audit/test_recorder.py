"""The recorder on ports in memory that die between any two steps: one leaf per record, one tree, or it waits."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.domain.checkpoint import Signer
from audit.domain.leaf import Leaf
from audit.domain.tiles import LogName, log_name
from audit.domain.verify import verify
from audit.handlers.leaf_codec import decode_leaf
from audit.handlers.log_files import LogFiles
from audit.handlers.recorder import Recorder
from audit.ports import LogStoppedError
from chassis.errors import Unavailable
from chassis.kafka.record import Record, TopicPartition
from tests.fakes.audit_ports import (
    CrashedError,
    Database,
    Disk,
    FakeAccountKeys,
    FakeEntryIndex,
    FakeLogStorage,
    FakeRecordedTopic,
    Fuse,
)
from tests.fakes.link_events import event_of, make_link, record_of

_TOPIC = "links-events"
_PLACES = (TopicPartition(_TOPIC, 0), TopicPartition(_TOPIC, 1))


def signer(log: LogName) -> Signer:
    """The signer of a log."""
    return Signer(f"log.example/audit/{log}", bytes(32))


def record(partition: int, offset: int) -> Record:
    """A record; every fifth cannot be decoded."""
    made = record_of(
        event_of(make_link(f"link-{partition}-{offset}", user_id=f"user-{offset % 3}")),
        partition=partition,
        offset=offset,
    )
    return replace(made, value=b"\xff") if offset % 5 == 4 else made


@dataclass
class World:
    """What outlives processes, and the topic's records; `living` is the process that runs now."""

    records: list[Record]
    accept_gaps: bool = False
    disk: Disk = field(default_factory=Disk)
    database: Database = field(default_factory=Database)
    told: list[tuple[bool, str]] = field(default_factory=list)

    def process(self, fuse: Fuse | None = None) -> Recorder:
        """A new process on the same disk and database; the one before it is dead."""
        storage = FakeLogStorage(self.disk, fuse)
        self.disk.owner = None
        return Recorder(
            storage=storage,
            topic=FakeRecordedTopic(self.records),
            open_log=lambda log: LogFiles(storage, log, signer(log)),
            keys=FakeAccountKeys(self.database, fuse),
            index=FakeEntryIndex(self.database, fuse),
            set_condition=self._tell,
            accept_gaps=self.accept_gaps,
        )

    def _tell(self, met: bool, why_not: str = "") -> None:
        self.told.append((met, why_not))

    def leaves(self, partition: int = 0) -> list[Leaf]:
        """The leaves of a log, proved from its files."""
        log = log_name(_TOPIC, partition)
        if (log, "checkpoint") not in self.disk.files:
            return []
        found = verify(lambda path: self.disk.files.get((log, path)), signer(log).verifier)
        return [decode_leaf(entry) for entry in found.entries]

    def check_complete(self) -> None:
        """Each record has its one leaf, in order, and each that names an account and a link its row."""
        for place in _PLACES:
            wanted = [record for record in self.records if record.topic_partition == place]
            leaves = self.leaves(place.partition)
            assert [leaf.offset for leaf in leaves] == [record.offset for record in wanted]
            assert [leaf.event_id for leaf in leaves] == [record.header("ce_id") for record in wanted]
            rows = {offset: row for (at, offset), row in self.database.rows.items() if at == place.partition}
            assert sorted(rows) == [record.offset for record in wanted if record.value != b"\xff"]
            assert all(leaves[row.leaf_index].offset == offset for offset, row in rows.items())


async def consume(world: World, recorder: Recorder, sizes: Callable[[], int]) -> None:
    """What the runner does: from the position that the handler names, in batches, partitions mixed."""
    position = await recorder.assigned(_PLACES)
    left = [r for r in world.records if r.offset >= position.get(r.topic_partition, 0)]
    while left:
        size = sizes()
        await recorder.handle(left[:size])
        left = left[size:]


def mixed(counts: Sequence[int]) -> list[Record]:
    """Records of several partitions, taking turns."""
    records = [record(partition, offset) for partition, count in enumerate(counts) for offset in range(count)]
    return sorted(records, key=lambda r: (r.offset, r.partition))


@pytest.mark.rule("B1", "B3")
def test_crash_before_every_step_leaves_one_leaf_per_record() -> None:
    """Whichever write a process does not live to make, the next one ends with one leaf per record and one tree."""
    records = mixed([300, 5])

    async def check() -> int:
        steps, burns_at = 1_000_000, 0
        while burns_at < steps:
            burns_at += 1
            world = World(records)
            fuse = Fuse(burns_at)
            try:
                await consume(world, world.process(fuse), lambda: 120)
            except CrashedError:
                await consume(world, world.process(), lambda: 77)  # other batches than before
            else:
                steps = burns_at  # it lived: every step has been the last one
            world.check_complete()
        return steps

    # Keys, and for each of three batches: entries and tiles of both logs, rows, checkpoints, what has been outlived.
    assert asyncio.run(check()) > 30


@pytest.mark.rule("B1", "B3")
@settings(max_examples=60, deadline=None)
@given(
    counts=st.tuples(st.integers(0, 280), st.integers(0, 20)),
    fuses=st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=6),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5),
)
def test_any_run_of_crashes_and_outages_ends_whole(
    counts: tuple[int, int], fuses: list[tuple[int, bool, bool]], sizes: list[int]
) -> None:
    """Crashes and dependencies that go away, again and again, with any batches: the logs end complete."""
    world = World(mixed(counts))
    turn = iter(range(1_000_000))

    async def check() -> None:
        for burns_at, crash, late in fuses:
            error = CrashedError() if crash else Unavailable("unavailable", "away")
            recorder = world.process(Fuse(burns_at, error, late))
            try:
                await consume(world, recorder, lambda: sizes[next(turn) % len(sizes)])
            except CrashedError:
                pass
            except Unavailable:
                await consume_again(world, recorder)
        await consume(world, world.process(), lambda: sizes[next(turn) % len(sizes)])

    asyncio.run(check())

    world.check_complete()


async def consume_again(world: World, recorder: Recorder) -> None:
    """The same process goes on, and is handed records a second time."""
    position = await recorder.checkpoint()
    behind = {place: max(0, position.get(place, 0) - 3) for place in _PLACES}
    again = [r for r in world.records if r.offset >= behind[r.topic_partition]]
    await recorder.handle(again[:50])


@pytest.mark.rule("B1", "B3")
def test_writes_that_were_done_but_not_told_of_are_found() -> None:
    """At every step the store may do its work and the answer be lost: the process tries again, in other batches."""
    records = mixed([270, 5])

    async def check() -> int:
        steps, burns_at = 1_000_000, 0
        while burns_at < steps:
            burns_at += 1
            world = World(records)
            recorder = world.process(Fuse(burns_at, Unavailable("unavailable", "away"), late=True))
            try:
                await consume(world, recorder, lambda: 120)
            except Unavailable:
                position = await recorder.checkpoint()
                left = [r for r in records if r.offset >= position.get(r.topic_partition, 0)]
                for at in range(0, len(left), 50):
                    await recorder.handle(left[at : at + 50])
            else:
                steps = burns_at
            world.check_complete()
        return steps

    assert asyncio.run(check()) > 30


@pytest.mark.rule("B1")
def test_records_that_come_twice_have_one_leaf() -> None:
    """A batch that is handed over again, whole or in part, changes nothing."""
    world = World(mixed([20, 20]))

    async def check() -> None:
        recorder = world.process()
        await recorder.assigned(_PLACES)
        await recorder.handle(world.records[:30])
        before = dict(world.disk.files)
        await recorder.handle(world.records[:30])
        await recorder.handle(world.records[10:20])
        assert world.disk.files == before
        await recorder.handle(world.records[10:])
        assert await recorder.revoked(_PLACES) == dict.fromkeys(_PLACES, 20)

    asyncio.run(check())

    world.check_complete()


@pytest.mark.rule("B3")
def test_adopted_entries_keep_the_bytes_they_were_written_with() -> None:
    """Entries beyond the checkpoint go into the tree as they are, even if their account's key is gone."""
    world = World(mixed([10, 0]))

    async def check() -> list[bytes]:
        with pytest.raises(CrashedError):  # keys: 3 accounts and the log; entries; then it dies before the tile
            await consume(world, world.process(Fuse(6)), lambda: 100)
        log = log_name(_TOPIC, 0)
        assert [path for _, path in world.disk.files] == ["tile/entries/000.p/10"]
        written = world.disk.files[log, "tile/entries/000.p/10"]
        world.database.keys.clear()
        await consume(world, world.process(), lambda: 4)
        return [written, world.disk.files[log, "tile/entries/000.p/10"]]

    written, found = asyncio.run(check())

    assert written == found
    world.check_complete()
    assert world.database.keys == {}


@pytest.mark.rule("B1")
def test_adopted_entries_stay_when_their_records_have_aged_out() -> None:
    """Kafka no longer has the records of entries beyond the checkpoint: the entries are leaves all the same."""
    world = World(mixed([10, 0]))

    async def check() -> None:
        with pytest.raises(CrashedError):
            await consume(world, world.process(Fuse(6)), lambda: 100)
        world.records = [record(0, offset) for offset in range(10, 14)]
        await consume(world, world.process(), lambda: 100)

    asyncio.run(check())

    assert [leaf.offset for leaf in world.leaves()] == list(range(14))


@pytest.mark.rule("B1")
@pytest.mark.parametrize("accept_gaps", [False, True])
def test_missing_records_stop_the_log_unless_a_person_accepts_it(accept_gaps: bool) -> None:
    """Behind a gap nothing is recorded, other logs go on; with the person's word the log goes on and shows the gap."""
    world = World([record(0, 0), record(0, 1), record(0, 5), record(1, 0)], accept_gaps=accept_gaps)

    async def check() -> None:
        recorder = world.process()
        await recorder.assigned(_PLACES)
        await recorder.handle(world.records[:2])
        if accept_gaps:
            await recorder.handle(world.records[2:])
            return
        with pytest.raises(LogStoppedError, match=r"links-events/0: record 2 .* at 5"):
            await recorder.handle(world.records[2:])
        assert world.told[-1] == (False, "log links-events/0: record 2 should come next, but Kafka goes on at 5")
        with pytest.raises(LogStoppedError):
            await recorder.handle(world.records[2:])

    asyncio.run(check())

    assert [leaf.offset for leaf in world.leaves(0)] == ([0, 1, 5] if accept_gaps else [0, 1])
    assert [leaf.offset for leaf in world.leaves(1)] == [0]


@pytest.mark.rule("B1")
def test_first_record_may_have_any_offset() -> None:
    """A log that begins late begins with the oldest record there is."""
    world = World([record(0, offset) for offset in range(7, 12)])

    asyncio.run(consume(world, world.process(), lambda: 2))

    assert [leaf.offset for leaf in world.leaves()] == [7, 8, 9, 10, 11]


def _made_anew(records: list[Record]) -> list[Record]:
    return [replace(r, timestamp_ms=r.timestamp_ms + 1_000) for r in records]


@pytest.mark.rule("B1")
@pytest.mark.parametrize(
    "later",
    [
        pytest.param([], id="empty"),
        pytest.param(_made_anew(mixed([4, 0])), id="shorter"),
        pytest.param(_made_anew(mixed([30, 0])), id="longer"),
    ],
)
def test_topic_made_anew_stops_the_log(later: list[Record]) -> None:
    """Another topic under the same name is not taken for the recorded one, however long it is."""
    world = World(mixed([10, 0]))
    asyncio.run(consume(world, world.process(), lambda: 100))
    before = dict(world.disk.files)

    world.records = later
    with pytest.raises(LogStoppedError, match="record 9 was recorded"):
        asyncio.run(consume(world, world.process(), lambda: 100))

    assert world.disk.files == before
    assert world.told[-1][0] is False


@pytest.mark.rule("B1")
def test_topic_whose_recorded_part_aged_out_goes_on() -> None:
    """Retention may take what was recorded; the log goes on at the next record."""
    world = World(mixed([10, 0]))
    asyncio.run(consume(world, world.process(), lambda: 100))

    world.records = [record(0, 10), record(0, 11)]
    asyncio.run(consume(world, world.process(), lambda: 100))

    assert [leaf.offset for leaf in world.leaves()] == list(range(12))


@pytest.mark.rule("B1")
def test_other_record_at_a_recorded_offset_stops_the_log() -> None:
    """A record that comes a second time with another content under its offset is no repeat."""
    world = World(mixed([10, 0]))

    async def check() -> None:
        recorder = world.process()
        await recorder.assigned(_PLACES)
        await recorder.handle(world.records)
        with pytest.raises(LogStoppedError, match="another record 5"):
            await recorder.handle(_made_anew(world.records)[5:6])

    asyncio.run(check())


@pytest.mark.rule("B3")
@pytest.mark.parametrize("path", ["checkpoint", "tile/0/000.p/10", "tile/entries/000.p/10"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_damaged_log_is_never_continued(path: str, damage: str) -> None:
    """A log whose files do not prove each other stops; nothing is written over the evidence."""
    world = World(mixed([10, 0]))
    asyncio.run(consume(world, world.process(), lambda: 100))
    place = log_name(_TOPIC, 0), path
    content = world.disk.files.pop(place)
    if damage == "changed":
        world.disk.files[place] = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    before = dict(world.disk.files)

    if path == "checkpoint" and damage == "gone":
        # Truncation of all there was: the entries are there, so they are adopted, and the same checkpoint results.
        asyncio.run(consume(world, world.process(), lambda: 100))
        assert world.disk.files == {**before, place: content}
        return
    with pytest.raises(LogStoppedError):
        asyncio.run(consume(world, world.process(), lambda: 100))

    assert world.disk.files == before


@pytest.mark.rule("B2")
def test_waits_while_another_process_has_the_logs() -> None:
    """A second process reads nothing and writes nothing; it says why it waits."""
    world = World(mixed([3, 3]))

    async def check() -> None:
        recorder = world.process()
        world.disk.owner = object()
        with pytest.raises(Unavailable, match="Another process"):
            await recorder.assigned(_PLACES)

    asyncio.run(check())

    assert world.disk.files == {}
    assert world.told == [(False, "Another process writes the audit logs.")]


@pytest.mark.rule("B3")
def test_same_value_at_two_places_has_two_commitments() -> None:
    """Commitments tell nothing of each other: the salt is another at each place and for each account."""
    twice = [replace(record(0, 0), offset=offset) for offset in (0, 1)]
    world = World(twice)

    asyncio.run(consume(world, world.process(), lambda: 10))

    leaves = world.leaves()
    assert leaves[0].commitment != leaves[1].commitment
    assert len(leaves[0].commitment) == 32
