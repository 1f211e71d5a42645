"""What a gateway keeps of links is never older than the rules allow, whatever is late, lost or standing still."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.domain.near_cache import ENTRY_BYTES, LIFE_S, OVERDUE_S, STILL_S, Entry, Flight, Limits, NearCache
from gateway.domain.sieve import Held, Sieve
from tests.fakes.gateway_peers import AT

Cache = NearCache[int, str, Flight]
PATHS = (b"/one", b"/two")
DELAY_S = 0.04  # what the model's network takes at most


class Time:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s

    def now(self) -> datetime:
        """The same as a moment."""
        return AT + timedelta(seconds=self.now_s)


def open_cache(limits: Limits | None = None) -> tuple[Cache, Time]:
    """A cache that hears of changes."""
    time = Time()
    cache: Cache = NearCache(limits or Limits(), monotonic=time.monotonic, now=time.now)
    cache.turned()
    cache.subscribed(time.now_s)
    return cache, time


def look_up(cache: Cache, path: bytes, value: int, time: Time) -> None:
    """A whole look-up that nothing comes in between of."""
    flight = Flight(path, time.now_s)
    cache.depart(flight)
    if cache.land(flight):
        cache.keep(Entry(path, value, f"to {value}", None))


def pass_by(cache: Cache, time: Time, seconds: float) -> None:
    """Time passes while the loop turns."""
    end = time.now_s + seconds
    while time.now_s < end:
        time.now_s = min(end, time.now_s + 0.05)
        cache.turned()


# ---------------------------------------------------------------- the model


@dataclass(slots=True)
class _Message:
    arrives_at: float
    path: bytes | None = None
    beat_at: float | None = None


@dataclass(slots=True)
class _Lookup:
    flight: Flight
    value: int | None = None  # what it read, once it has


@dataclass(slots=True)
class World:
    """Redis, a channel that may break without a word, and a gateway whose loop may stand still."""

    cache: Cache
    time: Time
    versions: dict[bytes, int] = field(default_factory=lambda: dict.fromkeys(PATHS, 0))
    ended_at: dict[tuple[bytes, int], float] = field(default_factory=dict)  # when each version was over
    channel: deque[_Message] = field(default_factory=deque)
    works: bool = True
    lookups: list[_Lookup] = field(default_factory=list)

    def say(self, message: _Message) -> None:
        """Redis tells of something, in order."""
        if self.works:
            before = self.channel[-1].arrives_at if self.channel else 0.0
            message.arrives_at = max(message.arrives_at, before)
            self.channel.append(message)

    def change(self, path: bytes, delay_s: float) -> None:
        """Somewhere a link is changed and acknowledged."""
        self.ended_at[path, self.versions[path]] = self.time.now_s
        self.versions[path] += 1
        self.say(_Message(self.time.now_s + delay_s, path=path))

    def beat(self, delay_s: float) -> None:
        """The gateway writes a beat."""
        self.say(_Message(self.time.now_s + delay_s, beat_at=self.time.now_s))

    def hear(self) -> None:
        """The gateway reads what has arrived."""
        while self.channel and self.channel[0].arrives_at <= self.time.now_s:
            message = self.channel.popleft()
            if message.path is not None:
                self.cache.invalidate(message.path)
            if message.beat_at is not None:
                self.cache.heard(message.beat_at)

    def begin(self, path: bytes) -> None:
        """A look-up begins; it may board another one."""
        if self.cache.board(path) is None:
            flight = Flight(path, self.time.now_s)
            self.cache.depart(flight)
            self.lookups.append(_Lookup(flight))

    def advance(self, number: int) -> None:
        """A look-up reads in Redis, or lands with what it read."""
        if not self.lookups:
            return
        lookup = self.lookups[number % len(self.lookups)]
        path = lookup.flight.path
        if lookup.value is None:
            lookup.value = self.versions[path]
            return
        self.lookups.remove(lookup)
        if self.cache.land(lookup.flight):
            self.cache.keep(Entry(path, lookup.value, f"to {lookup.value}", None))

    def turn(self, seconds: float, parts: Sequence[str], delay_s: float) -> None:
        """The loop turns once, and does what there is to do in this order."""
        self.time.now_s += seconds
        for part in parts:
            if part == "timer" and self.cache.turned():
                self.beat(delay_s)
            elif part == "read":
                self.hear()
            elif part == "ask":
                for path in PATHS:
                    self.check(path)

    def stand(self, seconds: float) -> None:
        """It does not turn."""
        self.time.now_s += seconds

    def break_off(self) -> None:
        """From now on nothing arrives, and nobody notices."""
        self.works = False

    def lose(self) -> None:
        """The channel is gone, and the gateway knows."""
        self.works = False
        self.channel.clear()
        self.cache.lost()

    def connect(self) -> None:
        """Another channel is made."""
        self.lose()
        self.works = True
        self.cache.subscribed(self.time.now_s)

    def check(self, path: bytes) -> None:
        """What would be served is not older than allowed: a moment, or LIFE_S if the channel is broken."""
        served = self.cache.find(path)
        assert (served is None) == (self.cache.get(path) is None)
        if served is None:
            return
        ended_at = self.ended_at.get((path, served.value))
        if ended_at is not None:
            behind_s = self.time.now_s - ended_at
            assert behind_s <= LIFE_S
            if self.works:
                assert behind_s <= STILL_S + DELAY_S


_delays = st.floats(0, DELAY_S)
_paths = st.sampled_from(PATHS)
_steps = st.one_of(
    st.tuples(st.just("turn"), st.floats(0.001, 0.06), st.permutations(("timer", "read", "ask")), _delays),
    st.tuples(st.just("stand"), st.floats(0.05, 7.0)),
    st.tuples(st.just("change"), _paths, _delays),
    st.tuples(st.just("begin"), _paths),
    st.tuples(st.just("advance"), st.integers(0, 3)),
    st.tuples(st.just("beat"), _delays),
    st.tuples(st.just("break_off")),
    st.tuples(st.just("lose")),
    st.tuples(st.just("connect")),
)


@pytest.mark.rule("L1", "L2", "P2")
@settings(max_examples=500, deadline=None)
@given(st.lists(_steps, max_size=60))
@example(  # a pause in which a link was changed; the request is read before what Redis said
    [("begin", b"/one"), ("advance", 0), ("advance", 0), ("change", b"/one", 0.0), ("stand", 3.0),
     ("turn", 0.001, ("ask", "timer", "read"), 0.0)]
)  # fmt: skip
@example(  # the same, the loop's timer first
    [("begin", b"/one"), ("advance", 0), ("advance", 0), ("change", b"/one", 0.0), ("stand", 3.0),
     ("turn", 0.001, ("timer", "ask", "read"), 0.0)]
)  # fmt: skip
@example(  # a look-up that has read before the change and lands behind the invalidation
    [("begin", b"/one"), ("advance", 0), ("change", b"/one", 0.0), ("turn", 0.001, ("read", "timer", "ask"), 0.0),
     ("advance", 0), *[("turn", 0.05, ("read", "timer", "ask"), 0.0)] * 4]
)  # fmt: skip
@example(  # one that was under way when the channel was made
    [("begin", b"/one"), ("advance", 0), ("lose",), ("change", b"/one", 0.0), ("connect",), ("advance", 0),
     *[("turn", 0.05, ("read", "timer", "ask"), 0.0)] * 4]
)  # fmt: skip
@example(  # two look-ups of one code: the older one is not found by the invalidation
    [("begin", b"/one"), ("advance", 0), *[("turn", 0.04, ("read", "timer", "ask"), 0.0)] * 2, ("begin", b"/one"),
     ("change", b"/one", 0.0), ("turn", 0.001, ("read", "timer", "ask"), 0.0), ("advance", 0),
     *[("turn", 0.05, ("read", "timer", "ask"), 0.0)] * 4]
)  # fmt: skip
def test_nothing_is_served_that_has_been_over_for_longer_than_allowed(steps: list[tuple[str, Any]]) -> None:
    """Whatever happens in whatever order: 5 s at most, and 100 ms and the network's delay while the channel works."""
    world = World(*open_cache())
    for name, *details in steps:
        getattr(world, name)(*details)


# ---------------------------------------------------------------- flights


@pytest.mark.rule("L1")
def test_a_marked_flight_is_answered_and_not_kept() -> None:
    """What was read before an invalidation is for those aboard."""
    cache, time = open_cache()
    flight = Flight(b"/one", time.now_s)
    cache.depart(flight)

    assert cache.invalidate(b"/one") is flight

    assert not cache.land(flight)


@pytest.mark.rule("L1")
def test_a_marked_flight_takes_no_new_passengers() -> None:
    """A look-up that begins after the mark flies alone, and is kept."""
    cache, time = open_cache()
    old = Flight(b"/one", time.now_s)
    cache.depart(old)
    assert cache.board(b"/one") is old
    cache.invalidate(b"/one")
    assert cache.board(b"/one") is None
    new = Flight(b"/one", time.now_s)
    cache.depart(new)

    assert cache.board(b"/one") is new
    assert not cache.land(old)
    assert cache.board(b"/one") is new
    assert cache.land(new)


@pytest.mark.rule("L1")
def test_a_flush_marks_every_flight() -> None:
    """Redis was emptied: what is under way may be of before."""
    cache, time = open_cache()
    flights = [Flight(path, time.now_s) for path in PATHS]
    for flight in flights:
        cache.depart(flight)
    look_up(cache, b"/three", 3, time)

    assert cache.flush() == flights

    assert cache.find(b"/three") is None
    assert [cache.land(flight) for flight in flights] == [False, False]


@pytest.mark.rule("L1", "P2")
def test_nobody_boards_a_flight_that_left_long_ago() -> None:
    """Also where no invalidation comes, an answer is not older than 50 ms when it is asked for."""
    cache, time = open_cache()
    cache.depart(Flight(b"/one", time.now_s))
    time.now_s += 0.049
    assert cache.board(b"/one") is not None
    time.now_s += 0.002

    assert cache.board(b"/one") is None


# ---------------------------------------------------------------- the channel


@pytest.mark.rule("L2")
def test_nothing_is_kept_before_the_subscription_is_confirmed_nor_after_it_is_lost() -> None:
    """What nobody would be told of must not be kept; what was under way at that moment, neither."""
    time = Time()
    cache: Cache = NearCache(Limits(), monotonic=time.monotonic, now=time.now)
    cache.turned()
    look_up(cache, b"/one", 1, time)
    early = Flight(b"/two", time.now_s)
    cache.depart(early)
    cache.subscribed(time.now_s)

    assert cache.find(b"/one") is None
    assert not cache.land(early)

    late = Flight(b"/two", time.now_s)
    cache.depart(late)
    cache.lost()
    look_up(cache, b"/one", 1, time)
    assert not cache.land(late)
    assert cache.find(b"/one") is None


@pytest.mark.rule("L2")
def test_past_the_last_beat_entries_live_five_seconds() -> None:
    """Counted from when the beat was sent, not from when it was heard; after two the channel is to be given up."""
    cache, time = open_cache()
    look_up(cache, b"/one", 1, time)
    sent_at = time.now_s
    pass_by(cache, time, 1.0)
    cache.heard(sent_at)
    pass_by(cache, time, sent_at + OVERDUE_S - time.now_s)
    assert not cache.is_overdue()
    pass_by(cache, time, 0.01)
    assert cache.is_overdue()
    cache.lost()

    pass_by(cache, time, sent_at + LIFE_S - 0.01 - time.now_s)
    assert cache.get(b"/one") == "to 1"
    pass_by(cache, time, 0.02)
    assert cache.get(b"/one") is None
    assert cache.find(b"/one") is None


@pytest.mark.rule("L3")
def test_while_beats_come_entries_have_no_age() -> None:
    """An hour later it is served as on the first second."""
    cache, time = open_cache()
    look_up(cache, b"/one", 1, time)
    for _ in range(3600):
        pass_by(cache, time, 1.0)
        cache.heard(time.now_s - 0.01)

    assert cache.get(b"/one") == "to 1"


@pytest.mark.rule("L2")
def test_after_a_standstill_only_a_beat_sent_since_makes_good() -> None:
    """A beat that was under way meanwhile proves nothing; and the channel is not to blame for our pause."""
    cache, time = open_cache()
    look_up(cache, b"/one", 1, time)
    pass_by(cache, time, 0.2)
    before = time.now_s
    time.now_s += 3.0

    assert cache.get(b"/one") is None
    assert cache.turned(), "a beat is to be sent at once"
    assert not cache.is_overdue()
    cache.heard(before)
    assert cache.get(b"/one") is None
    cache.heard(time.now_s)
    assert cache.get(b"/one") == "to 1"


@pytest.mark.rule("L4")
def test_while_nobody_answers_an_entry_is_had_for_a_minute() -> None:
    """Sixty seconds past the last beat, and not past a new connection, which begins with nothing."""
    cache, time = open_cache()
    look_up(cache, b"/one", 1, time)
    cache.lost()
    pass_by(cache, time, 59.9)
    stale = cache.stale(b"/one")
    assert stale is not None
    assert stale.value == 1
    pass_by(cache, time, 0.2)
    assert cache.stale(b"/one") is None

    look_up(cache, b"/one", 1, time)
    cache.subscribed(time.now_s)
    assert cache.stale(b"/one") is None


# ---------------------------------------------------------------- what is kept


@pytest.mark.rule("L5")
def test_that_nobody_has_a_code_is_known_for_a_second() -> None:
    """And no longer than the channel's word, and not after somebody took it; and for so many codes only."""
    cache, time = open_cache(Limits(absent_max=2))
    cache.keep_absent(b"/one")
    pass_by(cache, time, 0.9)
    assert cache.is_absent(b"/one")
    pass_by(cache, time, 0.2)
    assert not cache.is_absent(b"/one")

    for path in (b"/one", b"/two", b"/three"):
        cache.keep_absent(path)
    assert [cache.is_absent(path) for path in (b"/one", b"/two", b"/three")] == [False, True, True]
    cache.invalidate(b"/two")
    assert not cache.is_absent(b"/two")
    time.now_s += 0.2
    assert not cache.is_absent(b"/three")


@pytest.mark.rule("P2")
def test_a_redirect_ends_with_its_link() -> None:
    """From `until` on there is no redirect; the entry itself still tells what the link is."""
    cache, time = open_cache()
    flight = Flight(b"/one", time.now_s)
    cache.depart(flight)
    cache.land(flight)
    cache.keep(Entry(b"/one", 1, "to 1", time.now() + timedelta(seconds=0.05)))

    assert cache.get(b"/one") == "to 1"
    pass_by(cache, time, 0.05)
    assert cache.get(b"/one") is None
    assert cache.find(b"/one") is not None


class _Item(Held):
    """Something to hold."""

    __slots__ = ()


@given(st.lists(st.tuples(st.sampled_from(["put", "use", "drop"]), st.integers(0, 9)), max_size=200), st.integers(1, 5))
def test_a_sieve_is_what_its_paper_says(steps: list[tuple[str, int]], size: int) -> None:
    """Against a list and a hand that are too simple to be wrong: the same things are held after every step."""
    sieve: Sieve[_Item] = Sieve(size)
    queue: list[list[object]] = []  # oldest first: [path, visited]
    hand: object = None  # the path where the search goes on
    for kind, number in steps:
        path = b"/%d" % number
        places = [place for place, item in enumerate(queue) if item[0] == path]
        if kind == "use":
            if path in sieve.entries:
                sieve.entries[path].visited = True
            for place in places:
                queue[place][1] = True
            continue
        for place in places:
            if hand == path:
                hand = queue[place + 1][0] if place + 1 < len(queue) else None
            del queue[place]
        if kind == "drop":
            assert sieve.drop(path) == bool(places)
        else:
            if len(queue) >= size:
                place = next((index for index, item in enumerate(queue) if item[0] == hand), 0)
                while queue[place][1]:
                    queue[place][1] = False
                    place = (place + 1) % len(queue)
                hand = queue[place + 1][0] if place + 1 < len(queue) else None
                del queue[place]
            queue.append([path, False])
            sieve.put(_Item(path))
        assert set(sieve.entries) == {item[0] for item in queue}


def test_a_scan_does_not_push_out_what_is_used() -> None:
    """A thousand links asked for once leave those that are asked for again and again where they are."""
    sieve: Sieve[_Item] = Sieve(100)
    for number in range(50):
        sieve.put(_Item(b"/used/%d" % number))
    for number in range(1000):
        for used in range(50):
            sieve.entries[b"/used/%d" % used].visited = True
        sieve.put(_Item(b"/scan/%d" % number))

    assert all(b"/used/%d" % number in sieve.entries for number in range(50))
    assert len(sieve.entries) == 100


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 7)), max_size=100), st.integers(0, 12))
def test_what_weighs_more_takes_more_room(puts: list[tuple[int, int]], size: int) -> None:
    """All that is held fits, what is put is held if it can fit at all, and of one path there is never an older one."""
    sieve: Sieve[_Item] = Sieve(size)
    for number, weight in puts:
        item = _Item(b"/%d" % number, weight)
        sieve.put(item)
        assert sum(held.weight for held in sieve.entries.values()) <= size
        assert sieve.entries.get(item.path) is (item if weight <= size else None)


def test_links_with_long_destinations_do_not_fill_memory() -> None:
    """One that takes the room of several counts as several: whoever makes a hundred thousand links of 2 kB each and
    follows them ends no gateway."""
    cache, _ = open_cache(Limits(entries_max=100))
    for number in range(200):
        cache.keep(Entry(b"/%d" % number, number, "", None, size_bytes=5000))
    assert cache.size == 100 // (1 + 5000 // ENTRY_BYTES)
    cache.flush()
    for number in range(200):
        cache.keep(Entry(b"/%d" % number, number, "", None, size_bytes=900))
    assert cache.size == 100
