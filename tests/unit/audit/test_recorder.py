"""The recorder on ports in memory that die between any two steps: one leaf per record, one tree."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.domain.tiles import log_name
from audit.handlers.recorder import Recorder
from chassis.errors import Unavailable
from tests.fakes.audit_ports import (
    CrashedError,
    Fuse,
)
from tests.unit.audit.world import PLACES, TOPIC, World, consume, mixed, record


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
    behind = {place: max(0, position.get(place, 0) - 3) for place in PLACES}
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
        await recorder.assigned(PLACES)
        await recorder.handle(world.records[:30])
        before = dict(world.disk.files)
        await recorder.handle(world.records[:30])
        await recorder.handle(world.records[10:20])
        assert world.disk.files == before
        await recorder.handle(world.records[10:])
        assert await recorder.revoked(PLACES) == dict.fromkeys(PLACES, 20)

    asyncio.run(check())

    world.check_complete()


@pytest.mark.rule("B1", "C5")
def test_a_replay_for_another_group_is_a_leaf_too() -> None:
    """`replay_for` concerns those who handle records; what stands in the topic is recorded, each in a leaf."""
    original, other = mixed([2, 0])
    replayed = replace(other, value=original.value, headers=(*original.headers, ("replay_for", b"database-writer")))
    world = World([original, replayed])

    async def check() -> None:
        recorder = world.process()
        await recorder.assigned(PLACES)
        await recorder.handle(world.records)
        await recorder.revoked(PLACES)

    asyncio.run(check())

    assert len(world.leaves(0)) == 2
    world.check_complete()


@pytest.mark.rule("B3")
def test_adopted_entries_keep_the_bytes_they_were_written_with() -> None:
    """Entries beyond the checkpoint go into the tree as they are, even if their account's key is gone."""
    world = World(mixed([10, 0]))

    async def check() -> list[bytes]:
        with pytest.raises(CrashedError):  # keys: 3 accounts and the log; entries; then it dies before the tile
            await consume(world, world.process(Fuse(6)), lambda: 100)
        log = log_name(TOPIC, 0)
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
