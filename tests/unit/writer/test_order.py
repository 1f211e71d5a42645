"""What stands in the tables at the moment Redis is told of it."""

import asyncio
from collections.abc import Sequence

import pytest

from chassis.errors import Unavailable
from chassis.kafka.record import Done
from contracts.link import Link
from tests.fakes.link_events import event_of, make_link, record_of
from tests.fakes.writer_link_table import FakeLinkTable, FakePersistedMarker
from writer.handlers import EventWriter


class WatchfulMarker(FakePersistedMarker):
    """Notes every mark that the tables do not bear out at that very moment."""

    def __init__(self, table: FakeLinkTable) -> None:
        super().__init__()
        self.table = table
        self.lies: list[tuple[str, int]] = []

    async def persisted(self, links: Sequence[Link]) -> None:
        """Marks these versions."""
        for link in links:
            row = self.table.links.get(link.key)
            if (link.key, link.version) not in self.table.events or row is None or row.version < link.version:
                self.lies.append((link.key, link.version))
        await super().persisted(links)


@pytest.mark.rule("R4", "R5", "W1")
@pytest.mark.parametrize("items_before_the_fault", [None, *range(6)])
@pytest.mark.parametrize("is_repeat", [False, True], ids=["new", "repeated"])
def test_redis_is_told_of_what_the_tables_hold_and_of_nothing_else(
    is_repeat: bool, items_before_the_fault: int | None
) -> None:
    """R4: event row and projection first, also of an event that came before and died between the two, and wherever the
    database goes away: a mark that came earlier would let an entry expire that the tables do not have."""
    table = FakeLinkTable()
    marker = WatchfulMarker(table)
    links = [make_link("abc", version=2), make_link("def")]
    records = [record_of(event_of(link), offset=offset) for offset, link in enumerate(links)]
    if is_repeat:
        asyncio.run(EventWriter(table, marker)(records))
        table.links.clear()  # as if the first delivery had died before the projection
        marker.marked.clear()
    table.fail_after = items_before_the_fault

    try:
        outcomes = asyncio.run(EventWriter(table, marker)(records))
    except Unavailable:
        table.fail_after = None
        assert not marker.lies
        outcomes = asyncio.run(EventWriter(table, marker)(records))

    assert outcomes == [Done(), Done()]
    assert not marker.lies
    assert set(marker.marked) == {(link.key, link.version) for link in links}
    assert table.links == {link.key: link for link in links}
