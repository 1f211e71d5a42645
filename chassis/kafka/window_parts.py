"""The parts a window is made of: a ticket for who works on a record, an entry, a lane per key, a partition."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from chassis.kafka.record import Record, Rejected


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A record handed out to be worked on. It comes back by one of `complete`, `release`, `reject`, `bury_later`.

    `attempts`: how often the handler has rejected the record so far. `verdict`: given up on, to be buried, not handled.
    """

    record: Record
    epoch: int
    attempts: int
    first_failed_at_ms: int | None
    verdict: Rejected | None


class Step(Enum):
    """What becomes of a rejected record."""

    RETRY = auto()  # later, by itself
    BURY = auto()  # the caller sends it to the dead letters now, then completes it
    STALE = auto()  # its partition is no longer ours: nothing


@dataclass(slots=True, eq=False)
class Entry:
    """A record that is not finished. `verdict`: given up on; `rejected`: the last word of the handler about it."""

    record: Record
    epoch: int
    attempts: int = 0
    first_failed_at_ms: int | None = None
    verdict: Rejected | None = None
    rejected: Rejected | None = None


@dataclass(slots=True, eq=False)
class Lane:
    """One key. At most one of: handed out (`ticket`), waiting for a due time (`due`), ready (in the ready queue)."""

    queue: deque[Entry] = field(default_factory=deque)
    ticket: Ticket | None = None
    due: float | None = None


@dataclass(slots=True)
class Partition:
    """What is known of a partition in this assignment."""

    epoch: int
    unfinished: dict[int, Entry] = field(default_factory=dict)  # in offset order
    next_offset: int | None = None  # behind the last record seen
    newest_ms: int = 0  # broker time of the newest record seen
    committed: int | None = None
    full: bool = False

    @property
    def watermark(self) -> int | None:
        """The next offset to commit: the lowest unfinished one, or the one behind the last seen; None: none yet."""
        return next(iter(self.unfinished), self.next_offset)

    @property
    def span(self) -> int:
        """How many offsets lie from the watermark to the last record seen: what comes again after a crash."""
        return (self.next_offset or 0) - (self.watermark or 0)


def size_of(record: Record) -> int:
    """The bytes that count towards the window's limit."""
    return len(record.key) + len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
