"""What a gateway keeps of links in its own memory (L1), and when it may be believed [L1, L2, L3, L5].

A state machine without I/O. An adapter that hears Redis' invalidations drives it: `subscribed`, `lost`, `heard`,
`invalidate`, `flush`, and `turned` as often as the loop turns; look-ups register as flights. Three things could make it
serve what is over, and each has its guard:

- An answer that was under way when its link changed. An invalidation marks the flight: those aboard are answered,
  nothing is kept, and nobody boards any more.
- Invalidations that do not arrive. A beat goes through Redis and comes back by the same channel, behind all that was
  said before it; past the last beat's *sending* entries live `LIFE_S` at most.
- Invalidations that have arrived and were not read, since the process stood still (SIGSTOP, a busy machine). When the
  loop turns too late, nothing is served until a beat that was sent afterwards has come back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Generic, TypeVar

from gateway.domain.sieve import Held, Sieve

TURN_S = 0.05  # how often the loop's turning is noted
STILL_S = 0.1  # [P2] a loop that has not turned for so long may have missed a change that is that old
OVERDUE_S = 2.0  # [L2] without a beat for so long the channel is broken: another one is to be made
LIFE_S = 5.0  # [L2] what a broken channel costs at most
ABSENT_S = 1.0  # [L5]
ENTRY_BYTES = 1536  # as most links take less; a destination of 2 kB is in memory twice
_JOIN_S = 0.05  # below the 100 ms of P2 also where no invalidation comes

V = TypeVar("V")  # a link's value as it is stored
R = TypeVar("R")  # a redirect that is ready to be sent


class Entry(Held, Generic[V, R]):
    """A link. `ready` is its redirect until `until` (None: for ever), or None: it does not redirect as things stand.
    `size_bytes` is about what it takes."""

    __slots__ = ("ready", "until", "value")

    def __init__(self, path: bytes, value: V, ready: R | None, until: datetime | None, *, size_bytes: int = 0) -> None:
        super().__init__(path, 1 + size_bytes // ENTRY_BYTES)
        self.value = value
        self.ready = ready
        self.until = until


class Flight:
    """A look-up under way. `marked`: its answer is for those aboard alone [L1]."""

    __slots__ = ("began", "marked", "path")

    def __init__(self, path: bytes, began: float) -> None:
        self.path = path
        self.began = began
        self.marked = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept: links, of which one that takes more than ENTRY_BYTES counts as several; and codes that nobody
    has."""

    entries_max: int = 100_000
    absent_max: int = 10_000
    stale_s: float = 60.0  # past the last beat, for when nobody else can tell [L4]


F = TypeVar("F", bound=Flight)


class NearCache(Generic[V, R, F]):
    """L1. `monotonic` and `now` tell the time; paths are `/` and a link key, as they come off the wire."""

    def __init__(self, limits: Limits, *, monotonic: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._now = now
        self._sieve: Sieve[Entry[V, R]] = Sieve(limits.entries_max)
        self._entries = self._sieve.entries
        self._absent: dict[bytes, float] = {}  # until when, in the order of that
        self._flights: dict[bytes, F] = {}  # the youngest of each path
        self._keeping = False
        self._beat_at: float | None = None  # when the last beat that came back was sent
        self._turned_at = -inf
        self._still_at: float | None = None  # the end of a standstill that no beat has made good yet
        self._serve_until = -inf

    def get(self, path: bytes) -> R | None:
        """The redirect for a path, if it may be served at this moment."""
        entry = self._entries.get(path)
        if entry is None or self._monotonic() >= self._serve_until:
            return None
        if entry.until is not None and self._now() >= entry.until:
            return None
        entry.visited = True
        return entry.ready

    def find(self, path: bytes) -> Entry[V, R] | None:
        """The entry of a path, redirect or not, if it may be served at this moment."""
        entry = self._entries.get(path)
        if entry is None or self._monotonic() >= self._serve_until:
            return None
        entry.visited = True
        return entry

    def is_absent(self, path: bytes) -> bool:
        """Whether it is known, and may be said at this moment, that nobody has this code."""
        now = self._monotonic()
        return now < self._absent.get(path, -inf) and now < self._serve_until

    def stale(self, path: bytes) -> Entry[V, R] | None:
        """The entry of a path as it was when the last beat came, for when nobody can tell what it is now [L4]."""
        if self._beat_at is None or self._monotonic() >= self._beat_at + self._limits.stale_s:
            return None
        return self._entries.get(path)

    # ------------------------------------------------------------ look-ups

    def board(self, path: bytes) -> F | None:
        """The flight that a look-up which begins now may join."""
        flight = self._flights.get(path)
        if flight is None or flight.marked or self._monotonic() - flight.began > _JOIN_S:
            return None
        return flight

    def depart(self, flight: F) -> None:
        """Registers a flight. One of the same path that is still in the air keeps its passengers to itself: what no
        invalidation can find any more must not be kept."""
        before = self._flights.get(flight.path)
        if before is not None:
            before.marked = True
        self._flights[flight.path] = flight

    def land(self, flight: F) -> bool:
        """The flight is over; whether what it brought may be kept, by `keep` or `keep_absent`, at once."""
        if self._flights.get(flight.path) is flight:
            del self._flights[flight.path]
        return self._keeping and not flight.marked

    def keep(self, entry: Entry[V, R]) -> bool:
        """Takes an entry. True: another one had to go for it."""
        self._absent.pop(entry.path, None)
        return self._sieve.put(entry)

    def keep_absent(self, path: bytes) -> None:
        """Remembers for a second that nobody has a code."""
        self._absent.pop(path, None)
        while self._absent and len(self._absent) >= self._limits.absent_max:
            del self._absent[next(iter(self._absent))]
        if self._limits.absent_max > 0:
            self._absent[path] = self._monotonic() + ABSENT_S

    # ------------------------------------------------------------ changes

    def invalidate(self, path: bytes) -> F | None:
        """The link has changed: lets go of it and marks the look-up under way, which is returned."""
        self._sieve.drop(path)
        self._absent.pop(path, None)
        return self._mark(path)

    def flush(self) -> list[F]:
        """Anything may have changed: lets go of all, marks all look-ups under way, and returns these."""
        self._sieve.clear()
        self._absent.clear()
        return self._mark_all()

    # ------------------------------------------------------------ the channel

    def subscribed(self, asked_at: float) -> list[F]:
        """Redis has confirmed that from some moment after `asked_at` on it tells of every change. Returns the look-ups
        that were under way, which may have read before that moment."""
        marked = self.flush()
        self._keeping = True
        self._beat_at = asked_at
        self.heard(asked_at)
        return marked

    def lost(self) -> list[F]:
        """The channel is gone: nothing is kept any more, and what is there lives on for a while. Returns what was under
        way."""
        self._keeping = False
        return self._mark_all()

    def heard(self, sent_at: float) -> None:
        """A beat that was sent then has come back; so has everything that Redis said before it."""
        if not self._keeping or self._beat_at is None:
            return
        self._beat_at = max(self._beat_at, sent_at)
        if self._still_at is not None and sent_at >= self._still_at:
            self._still_at = None
        self._settle()

    def turned(self) -> bool:
        """The loop turns. True: it had stood still, and a beat should be sent at once."""
        now = self._monotonic()
        stood = now - self._turned_at > STILL_S
        if stood:
            self._still_at = now
        self._turned_at = now
        self._settle()
        return stood

    def is_overdue(self) -> bool:
        """Whether the channel should be given up. A standstill of ours is not its fault."""
        if self._beat_at is None:
            return True
        return self._monotonic() - max(self._beat_at, self._still_at or -inf) > OVERDUE_S

    @property
    def size(self) -> int:
        """How many links are kept."""
        return len(self._entries)

    def _settle(self) -> None:
        if self._beat_at is None or self._still_at is not None:
            self._serve_until = -inf
        else:
            self._serve_until = min(self._beat_at + LIFE_S, self._turned_at + STILL_S)

    def _mark(self, path: bytes) -> F | None:
        flight = self._flights.get(path)
        if flight is None or flight.marked:
            return None
        flight.marked = True
        return flight

    def _mark_all(self) -> list[F]:
        return [flight for path in list(self._flights) if (flight := self._mark(path)) is not None]
