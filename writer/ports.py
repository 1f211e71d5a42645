"""What writer needs from the world."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chassis.kafka.record import Record, TopicPartition
from contracts.link import Link, LinkEvent, LinkKey
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

    async def versions(self, keys: Sequence[LinkKey]) -> list[int | None]:
        """The versions of the projections, read consistently; None where there is none, or only a reservation."""
        ...

    async def have_first_events(self, keys: Sequence[LinkKey]) -> list[bool]:
        """Whether these links' first event rows are there, read consistently."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a partition: its offsets from `begin` to before `end`."""

    partition: TopicPartition
    begin: int
    end: int


class EventTopic(Protocol):
    """The topic of link events, for a reader that is no member of a group.

    Raises:
        Unavailable: Kafka is away.
    """

    async def spans(self, *, since: datetime | None) -> Sequence[Span]:
        """What each partition has now of what the broker stored from `since` on (None: of all); empty ones left out."""
        ...

    async def read(self, span: Span, offset: int, *, limit: int) -> Sequence[Record]:
        """Up to `limit` records of the span from that offset on, in order; none: there are no more."""
        ...


class PersistedMarker(Protocol):
    """Tells Redis what the tables hold, which gives the entries their expiry [R4]. May be repeated.

    Raises:
        Unavailable: Redis is away or hangs; some may have been marked.
    """

    async def persisted(self, links: Sequence[Link]) -> None:
        """Marks these versions as persisted."""
        ...
