"""The topic replayed into tables that were lost: every row as before, and an honest report."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Unavailable
from chassis.kafka.record import Record
from contracts.link import Link, LinkKey, LinkState
from tests.fakes.kafka_time import VirtualClock, run_virtual
from tests.fakes.link_events import START, another_event, event_of, make_link, record_of
from tests.fakes.writer_event_topic import FakeEventTopic
from tests.fakes.writer_link_table import FakeLinkTable, FakePersistedMarker
from writer.domain import Result, waves
from writer.handlers import EventWriter, decoded
from writer.loops import Replay, Replayed
from writer.ports import StoredEvent


class World:
    """A topic, tables, and a replay from one into the other."""

    def __init__(self, table: FakeLinkTable | None = None) -> None:
        self.topic, self.table, self.marker = FakeEventTopic(), table or FakeLinkTable(), FakePersistedMarker()
        self.advanced: list[int] = []

    def put(self, *links: Link, partition: int = 0) -> None:
        """Appends the events of these versions to a partition."""
        while len(self.topic.partitions) <= partition:
            self.topic.partitions.append([])
        records = self.topic.partitions[partition]
        for link in links:
            records.append(record_of(event_of(link), partition=partition, offset=len(records)))

    def replay(self, since_s: float | None = None) -> Replayed:
        """Runs it once."""

        async def main() -> Replayed:
            replay = Replay(
                self.topic, self.table, write=EventWriter(self.table, self.marker), decode=decoded, clock=VirtualClock()
            )
            since = None if since_s is None else START + timedelta(seconds=since_s)
            return await replay.run(await replay.spans(since=since), self.advanced.append)

        return run_virtual(main())


def versions(code: str, count: int) -> list[Link]:
    """A link's versions, the last of which deletes it."""
    return [
        make_link(code, version=number, state=LinkState.DELETED if number == count else LinkState.ACTIVE)
        for number in range(1, count + 1)
    ]


@given(keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=40), size=st.integers(1, 6))
def test_waves_keep_each_keys_order_and_name_no_key_twice(keys: list[bytes], size: int) -> None:
    """W4: every record is in one batch; within a batch keys differ; over the batches a key's records are in order."""
    batches = waves(keys, size)

    assert sorted(place for batch in batches for place in batch) == list(range(len(keys)))
    assert all(0 < len(batch) <= size for batch in batches)
    assert all(len({keys[place] for place in batch}) == len(batch) for batch in batches)
    for key in set(keys):
        places = [place for batch in batches for place in batch if keys[place] == key]
        assert places == sorted(places)


def test_records_of_many_links_make_few_batches() -> None:
    """A hundred links are one batch, however their records are mixed."""
    keys = [bytes([number % 100]) for number in range(300)]

    assert [len(batch) for batch in waves(keys, 100)] == [100, 100, 100]


@pytest.mark.rule("W1", "W2", "P1")
def test_lost_tables_are_as_they_were() -> None:
    """Event rows, projections and tombstones of 1500 links on three partitions; a second time changes nothing."""
    world = World()
    for number in range(1500):
        world.put(*versions(f"code-{number:04d}", 1 + number % 4), partition=number % 3)
    expected = {LinkKey(f"code-{number:04d}"): 1 + number % 4 for number in range(1500)}

    first = world.replay()
    rows, links = dict(world.table.events), dict(world.table.links)
    second = world.replay()

    assert first == second == Replayed(records=sum(expected.values()), links=1500)
    assert sum(world.advanced) == 2 * first.records
    assert {key: link.version for key, link in links.items() if link is not None} == expected
    assert Counter(key for key, _ in rows) == Counter(expected)
    assert (world.table.events, world.table.links) == (rows, links)
    assert len(world.marker.marked) == 2 * first.records


@pytest.mark.rule("W1", "W2")
def test_what_the_table_has_stays() -> None:
    """A newer projection is not taken back, a reservation is taken over, and a version that another event has is told
    as a conflict."""
    world = World()
    one, two, three = versions("aaa", 2), versions("bbb", 2), make_link("ccc")
    world.put(*one, *two, three)
    world.table.links[LinkKey("aaa")] = newer = make_link("aaa", version=7)
    world.table.reserve(LinkKey("ccc"))
    stolen = record_of(event_of(another_event(two[1])), offset=len(world.topic.partitions[0]))
    world.topic.partitions[0].append(stolen)
    world.topic.partitions[0].append(Record("links-events", 0, stolen.offset + 1, 0, b"x", b"\xff"))

    done = world.replay()

    assert done.rejected == {"conflict": 1, "undecodable": 1}
    assert (done.links, done.missing, done.headless) == (3, [], [])
    assert world.table.links == {"aaa": newer, "bbb": two[1], "ccc": three}


class ForgetfulTable(FakeLinkTable):
    """A table that says it stored a link, and did not."""

    async def update_links(self, links: Sequence[Link]) -> list[Result]:
        """Stores all but `bbb`."""
        results = await super().update_links([link for link in links if link.key != "bbb"])
        return [*results, Result.STORED] if len(results) < len(links) else results


def test_the_end_is_looked_at_not_believed() -> None:
    """A link whose newest version is not in the table after all is told by name, and so is one whose past is gone."""
    world = World(ForgetfulTable())
    world.put(*versions("aaa", 2), *versions("old", 3)[1:], *versions("bbb", 2))

    done = world.replay()

    assert done.missing == ["bbb"]
    assert done.headless == ["old"]


def test_a_moment_to_begin_at() -> None:
    """Only what the broker stored since then is replayed."""
    world = World()
    world.put(*versions("aaa", 3))
    first = decoded(world.topic.partitions[0][0])
    assert isinstance(first, StoredEvent)
    world.table.events[LinkKey("aaa"), 1] = first  # what the table still has

    done = world.replay(since_s=2)  # version n is n seconds old

    assert (done.records, done.links, done.headless) == (2, 1, [])


@pytest.mark.parametrize(("failures", "works"), [(10, True), (10_000, False)])
def test_stores_that_are_away_are_waited_for_a_minute(failures: int, works: bool) -> None:
    """A short outage costs time only; a long one ends the replay, which may be repeated."""
    world = World()
    world.put(*versions("aaa", 2))
    world.topic.failures = 0

    class Flaky(FakePersistedMarker):
        left = failures

        async def persisted(self, links: Sequence[Link]) -> None:
            """Away so many times."""
            if self.left:
                self.left -= 1
                raise Unavailable("unavailable", "away")
            await super().persisted(links)

    world.marker = Flaky()
    if works:
        assert world.replay().links == 1
    else:
        with pytest.raises(Unavailable):
            world.replay()
        world.marker = FakePersistedMarker()
        assert world.replay().links == 1
