"""What writer needs from the world."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.link import Link, LinkEvent
from writer.domain import Result


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A decoded event, with the bytes it was decoded from."""

    event: LinkEvent
    data: bytes


class LinkTable(Protocol):
    """The link tables. Every call may be repeated, takes at most 100 items of which no two name one row, and answers in
    the order it was asked.

    Raises:
        Unavailable: the database is away, hangs or throttles; some of the items may have been written.
    """

    async def insert_events(self, events: Sequence[StoredEvent]) -> list[Result]:
        """Puts event rows where there are none: STORED, EXISTS or INVALID."""
        ...

    async def stored_event_ids(self, events: Sequence[StoredEvent]) -> list[str | None]:
        """The event ids in the rows of these events' versions, read consistently; None where there is no row."""
        ...

    async def insert_links(self, links: Sequence[Link]) -> list[Result]:
        """Puts projections where there are none: STORED, EXISTS or INVALID."""
        ...

    async def update_links(self, links: Sequence[Link]) -> list[Result]:
        """Sets projections that have no version or an older one: STORED, REFUSED or INVALID."""
        ...

    async def read_links(self, links: Sequence[Link]) -> list[Result]:
        """Whether there are projections, read consistently: EXISTS or ABSENT."""
        ...


class PersistedMarker(Protocol):
    """Tells Redis what the tables hold, which gives the entries their expiry [R4]. May be repeated.

    Raises:
        Unavailable: Redis is away or hangs; some may have been marked.
    """

    async def persisted(self, links: Sequence[Link]) -> None:
        """Marks these versions as persisted."""
        ...
