"""When the recorder waits for a person or another process instead of recording something wrong."""

import asyncio
from dataclasses import replace

import pytest

from audit.domain.tiles import log_name
from audit.ports import LogStoppedError
from chassis.errors import Unavailable
from chassis.kafka.record import Record
from tests.unit.audit.world import PLACES, TOPIC, World, consume, mixed, record


@pytest.mark.rule("B1")
@pytest.mark.parametrize("accept_gaps", [False, True])
def test_missing_records_stop_the_log_unless_a_person_accepts_it(accept_gaps: bool) -> None:
    """Behind a gap nothing is recorded, other logs go on; with the person's word the log goes on and shows the gap."""
    world = World([record(0, 0), record(0, 1), record(0, 5), record(1, 0)], accept_gaps=accept_gaps)

    async def check() -> None:
        recorder = world.process()
        await recorder.assigned(PLACES)
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
        await recorder.assigned(PLACES)
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
    place = log_name(TOPIC, 0), path
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
            await recorder.assigned(PLACES)

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
