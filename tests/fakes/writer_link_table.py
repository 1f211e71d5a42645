"""writer's LinkTable in memory: the same conditions as the real one, and a switch that takes the database away."""

from collections.abc import Sequence
from typing import TypeVar

from chassis.errors import Unavailable
from contracts.link import Link, LinkKey
from writer.domain import Result
from writer.ports import StoredEvent

Item = TypeVar("Item")


class FakeLinkTable:
    """Rows in dictionaries. `fail_after` lets so many more items through, then the database is away."""

    def __init__(self) -> None:
        self.events: dict[tuple[LinkKey, int], StoredEvent] = {}
        self.links: dict[LinkKey, Link | None] = {}  # None: a reservation
        self.fail_after: int | None = None

    def reserve(self, key: LinkKey) -> None:
        """Puts a reservation."""
        self.links[key] = None

    async def insert_events(self, events: Sequence[StoredEvent]) -> list[Result]:
        """Puts event rows where there are none."""
        return [self._insert_event(item) for item in events]

    async def stored_event_ids(self, events: Sequence[StoredEvent]) -> list[str | None]:
        """The event ids of these rows."""
        rows = [self.events.get((item.event.link.key, item.event.version)) for item in self._passing(events)]
        return [row.event.event_id if row else None for row in rows]

    async def insert_links(self, links: Sequence[Link]) -> list[Result]:
        """Puts projections where there are none."""
        results = []
        for link in self._passing(links):
            results.append(Result.EXISTS if link.key in self.links else Result.STORED)
            self.links.setdefault(link.key, link)
        return results

    async def update_links(self, links: Sequence[Link]) -> list[Result]:
        """Sets projections that have no version or an older one."""
        results = []
        for link in self._passing(links):
            stored = self.links.get(link.key)
            newer = link.key in self.links and (stored is None or stored.version < link.version)
            if newer:
                self.links[link.key] = link
            results.append(Result.STORED if newer else Result.REFUSED)
        return results

    async def read_links(self, links: Sequence[Link]) -> list[Result]:
        """Whether there are projections."""
        return [Result.EXISTS if link.key in self.links else Result.ABSENT for link in self._passing(links)]

    async def versions(self, keys: Sequence[LinkKey]) -> list[int | None]:
        """The versions of the projections."""
        found = [self.links.get(key) for key in self._passing(keys)]
        return [None if link is None else link.version for link in found]

    async def have_first_events(self, keys: Sequence[LinkKey]) -> list[bool]:
        """Whether their first event rows are there."""
        return [(key, 1) in self.events for key in self._passing(keys)]

    def _insert_event(self, item: StoredEvent) -> Result:
        self._pass()
        name = (item.event.link.key, item.event.version)
        if name in self.events:
            return Result.EXISTS
        self.events[name] = item
        return Result.STORED

    def _passing(self, items: Sequence[Item]) -> Sequence[Item]:
        for _ in items:
            self._pass()
        return items

    def _pass(self) -> None:
        """Counts an item; raises when the database goes away in the middle of a call."""
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise Unavailable("unavailable", "away")
            self.fail_after -= 1


class FakePersistedMarker:
    """Remembers what was marked."""

    def __init__(self) -> None:
        self.marked: list[tuple[LinkKey, int]] = []
        self.away = False

    async def persisted(self, links: Sequence[Link]) -> None:
        """Marks these versions."""
        if self.away:
            raise Unavailable("unavailable", "away")
        self.marked += [(link.key, link.version) for link in links]
