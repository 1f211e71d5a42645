"""The keyed runner's state machine against a plain model, and its rules one by one."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from chassis.kafka.record import Record, Rejected, TopicPartition
from chassis.kafka.window import Step, Ticket, Window

DELAYS_S = (0.0, 5.0, 30.0)
PARTITIONS = [TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)]
MAY_PASS = Rejected("bug", retry=True)
NEVER_PASSES = Rejected("undecodable")


def make_window(records_max: int = 100, bytes_max: int = 1 << 20) -> Window:
    """A window with the first partition assigned."""
    window = Window(records_max=records_max, bytes_max=bytes_max, retry_delays_s=DELAYS_S)
    window.assign(PARTITIONS[:1])
    return window


def record(offset: int, key: str = "k", partition: TopicPartition = PARTITIONS[0], size: int = 1) -> Record:
    """A record, by default of key k in the first partition."""
    return Record(partition.topic, partition.partition, offset, 1000 + offset, key.encode(), b"x" * size)


def offsets(tickets: Sequence[Ticket]) -> list[int]:
    """Which offsets these tickets are for."""
    return [ticket.record.offset for ticket in tickets]


@pytest.mark.rule("C2")
def test_one_record_per_key_at_a_time_in_order() -> None:
    """Of each key only the oldest unfinished record is handed out, and the next one only when that is finished."""
    window = make_window()
    for offset, key in enumerate("aabab"):
        window.add(record(offset, key))

    first = window.take(10, now=0)
    while_out = window.take(10, now=0)
    window.complete(first[0])
    after_a = window.take(10, now=0)

    assert offsets(first) == [0, 2]
    assert offsets(while_out) == []
    assert offsets(after_a) == [1]


@pytest.mark.rule("C2")
def test_ladder_at_once_5_s_30_s_then_given_up() -> None:
    """A fault that may pass is tried again at once, 5 s and 30 s later, and given up at the fourth failure."""
    window = make_window()
    window.add(record(0))
    now, steps, waits = 100.0, [], []

    for _ in range(4):
        (ticket,) = window.take(1, now=now)
        steps.append(window.reject(ticket, MAY_PASS, now=now, wall_ms=7))
        due = window.next_due()
        waits.append(None if due is None else due - now)
        assert due is None or due == now or not window.take(1, now=due - 0.001)
        now = now if due is None else due

    assert steps == [Step.RETRY, Step.RETRY, Step.RETRY, Step.BURY]
    assert waits == [0.0, 5.0, 30.0, None]


@pytest.mark.rule("C1", "C2")
def test_other_keys_go_on_while_one_waits() -> None:
    """A key that waits for its retry holds back its own later records, and no other key's."""
    window = make_window()
    for offset, key in enumerate("abab"):
        window.add(record(offset, key))
    a, b = window.take(2, now=0)

    window.reject(a, MAY_PASS, now=0, wall_ms=0)
    (a,) = window.take(1, now=0)
    window.reject(a, MAY_PASS, now=0, wall_ms=0)
    window.complete(b)

    assert offsets(window.take(10, now=4.9)) == [3]
    assert offsets(window.take(10, now=5.0)) == [0]


@pytest.mark.rule("C1")
def test_release_burns_no_attempt() -> None:
    """However often a dependency is away, the record still has its whole ladder in front of it."""
    window = make_window()
    window.add(record(0))

    for _ in range(50):
        (ticket,) = window.take(1, now=0)
        window.release(ticket)

    (ticket,) = window.take(1, now=0)
    assert ticket.attempts == 0
    assert window.reject(ticket, MAY_PASS, now=0, wall_ms=0) is Step.RETRY


def test_unfinished_burial_holds_the_watermark_and_comes_back() -> None:
    """A dead letter that was not acknowledged is handed out again as such; till then nothing behind it is committed."""
    window = make_window()
    window.add(record(0, "a"))
    window.add(record(1, "b"))
    a, b = window.take(2, now=0)
    window.complete(b)

    assert window.reject(a, NEVER_PASSES, now=0, wall_ms=3) is Step.BURY
    window.bury_later(a, due=1.0)

    assert window.watermark(PARTITIONS[0]) == 0
    assert not window.take(1, now=0.9)
    (again,) = window.take(1, now=1.0)
    assert (again.verdict, again.attempts, again.first_failed_at_ms) == (NEVER_PASSES, 1, 3)
    window.complete(again)
    assert window.progress() == {PARTITIONS[0]: 2}


@pytest.mark.rule("C3")
def test_no_result_crosses_a_rebalance() -> None:
    """A ticket of before a rebalance changes nothing after it, and its key stays shut until it is back."""
    window = make_window()
    window.add(record(0))
    (stale,) = window.take(1, now=0)
    window.revoke(PARTITIONS[:1])
    window.assign(PARTITIONS[:1])
    window.add(record(0))

    assert not window.take(1, now=0), "two of one key would be in flight"
    assert not window.complete(stale)

    assert window.watermark(PARTITIONS[0]) == 0
    assert offsets(window.take(1, now=0)) == [0]


def test_a_full_partition_stays_full_until_half_is_left() -> None:
    """Reading stops at the limit of records and goes on at half of it, for that partition alone."""
    window = make_window(records_max=4)
    window.assign(PARTITIONS[:2])
    for offset in range(4):
        window.add(record(offset, str(offset)))
    window.add(record(0, "other", PARTITIONS[1]))

    full_at_4 = window.full()
    tickets = window.take(5, now=0)
    window.complete(tickets[0])
    full_at_3 = window.full()
    window.complete(tickets[1])
    window.complete(tickets[2])

    assert full_at_4 == full_at_3 == {PARTITIONS[0]}
    assert window.full() == frozenset()


def test_bytes_fill_every_partition() -> None:
    """The limit of bytes counts all partitions together, and is given back by finishing and by losing them."""
    window = make_window(bytes_max=1000)
    window.assign(PARTITIONS[:2])
    window.add(record(0, size=600))
    window.add(record(0, "other", PARTITIONS[1], size=600))

    full = window.full()
    window.revoke(PARTITIONS[1:2])

    assert full == set(PARTITIONS[:2])
    window.complete(window.take(1, now=0)[0])
    assert window.full() == frozenset()


def test_a_ticket_comes_back_once() -> None:
    """Giving a ticket back twice is a bug in the caller, and told as such."""
    window = make_window()
    window.add(record(0))
    (ticket,) = window.take(1, now=0)
    window.complete(ticket)
    window.add(record(1))
    window.take(1, now=0)

    with pytest.raises(ValueError, match="not out"):
        window.complete(ticket)


def crowd(window: Window, keys: str, partition: TopicPartition = PARTITIONS[0]) -> None:
    """Read a record per key; the first one fails, and may pass another time."""
    for offset, key in enumerate(keys):
        window.add(record(offset, key, partition))


@pytest.mark.rule("C2")
def test_head_of_line_a_crowd_of_other_keys_is_not_held_up() -> None:
    """While work is left that the waiting record does not hold up, it has its whole ladder."""
    window = make_window(records_max=100)
    crowd(window, "p" + "abcdef" * 16)
    (head,) = window.take(1, now=0)
    window.reject(head, MAY_PASS, now=0, wall_ms=0)

    assert window.unblock() == []


@pytest.mark.rule("C2")
def test_head_of_line_who_is_being_handled_is_not_given_up_on() -> None:
    """The second attempt is under way: it may pass. Only when it has failed, too, is it given up on."""
    window = make_window(records_max=100)
    crowd(window, "p" * 95)
    (head,) = window.take(1, now=0)
    never_rejected = window.unblock()
    window.reject(head, MAY_PASS, now=0, wall_ms=0)
    (head,) = window.take(1, now=0)
    under_way = window.unblock()
    window.reject(head, MAY_PASS, now=0, wall_ms=0)
    given_up = window.unblock()
    (again,) = window.take(1, now=0)

    assert (never_rejected, under_way, [r.offset for r in given_up]) == ([], [], [0])
    assert (again.verdict, again.attempts) == (MAY_PASS, 2)
    assert window.unblock() == [], "once is enough"


@pytest.mark.rule("C2")
def test_head_of_line_of_a_key_that_waits_for_another_partition() -> None:
    """A key's record in another partition is what waits; this partition's head was never tried, and stays."""
    window = make_window(records_max=100)
    window.assign(PARTITIONS[1:2])
    window.add(record(0, "p", PARTITIONS[1]))
    (elsewhere,) = window.take(1, now=0)
    crowd(window, "p" * 95)
    window.reject(elsewhere, MAY_PASS, now=0, wall_ms=0)

    assert window.unblock() == []


class WindowMachine(RuleBasedStateMachine):
    """Random histories of a window beside a model that keeps plain sets."""

    tickets: Bundle[Ticket] = Bundle("tickets")

    @initialize()
    def start(self) -> None:
        self.window = Window(records_max=8, span_max=4, bytes_max=10_000, retry_delays_s=DELAYS_S)
        self.now = 0.0
        self.logs_before = dict.fromkeys(PARTITIONS, 0)  # under the same name
        self.seen: set[TopicPartition] = set()  # of which something was read in this assignment
        self.given_up: set[tuple[TopicPartition, int]] = set()
        self.log: dict[TopicPartition, list[str]] = {tp: [] for tp in PARTITIONS}
        self.epoch: dict[TopicPartition, int] = {}  # of the model: counts assignments
        self.epochs = 0
        self.read: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = dict.fromkeys(PARTITIONS, 0)
        self.finished: dict[TopicPartition, set[int]] = {tp: set() for tp in PARTITIONS}
        self.out: dict[Ticket, int] = {}
        self.dying: set[Ticket] = set()
        self.failures: dict[tuple[TopicPartition, int], int] = {}

    @rule(tp=st.sampled_from(PARTITIONS))
    def assign(self, tp: TopicPartition) -> None:
        self.window.assign([tp])
        self.epochs += 1
        self.epoch[tp] = self.epochs
        self.read[tp] = self.committed[tp]
        self.begin(tp)

    def begin(self, tp: TopicPartition) -> None:
        """Forget what was known of it in the assignment before."""
        self.finished[tp] = set()
        self.failures = {place: n for place, n in self.failures.items() if place[0] != tp}
        self.given_up = {place for place in self.given_up if place[0] != tp}
        self.seen.discard(tp)

    def record(self, tp: TopicPartition, offset: int, key: str) -> Record:
        """A record of the log that the partition has now."""
        return replace(record(offset, key, tp), timestamp_ms=1_000_000 * self.logs_before[tp] + offset)

    @rule(tp=st.sampled_from(PARTITIONS))
    def create_anew(self, tp: TopicPartition) -> None:
        """The topic is deleted, with what the group had committed, and created again."""
        self.log[tp] = ["a"]
        self.logs_before[tp] += 1
        self.committed[tp] = self.read[tp] = 0
        anew = self.window.begun_anew(self.record(tp, 0, "a"))
        assert anew == (tp in self.seen)
        if anew:
            self.window.assign([tp])
            self.epochs += 1
            self.epoch[tp] = self.epochs
        self.begin(tp)

    @rule(tp=st.sampled_from(PARTITIONS))
    def revoke(self, tp: TopicPartition) -> None:
        self.window.revoke([tp])
        self.epoch.pop(tp, None)
        self.seen.discard(tp)

    @rule(tp=st.sampled_from(PARTITIONS), key=st.sampled_from("abc"), skip=st.integers(0, 9))
    def read_one(self, tp: TopicPartition, key: str, skip: int) -> None:
        """Read the next record of the log, which is written as it is read."""
        offset = self.read.get(tp, 0)
        if offset == len(self.log[tp]):
            self.log[tp].append(key)
        found = self.record(tp, offset, self.log[tp][offset])
        assert not self.window.begun_anew(found)
        taken = self.window.add(found, skip=skip == 0)
        assert taken == (tp in self.epoch)
        if taken:
            self.read[tp] = offset + 1
            self.seen.add(tp)
            if skip == 0:
                self.finished[tp].add(offset)

    @rule(tp=st.sampled_from(PARTITIONS))
    def read_again(self, tp: TopicPartition) -> None:
        """A record that was seen in this assignment is not taken twice."""
        if tp in self.seen:
            assert not self.window.add(self.record(tp, self.read[tp] - 1, "a"))

    @rule(target=tickets, limit=st.integers(1, 4))
    def take(self, limit: int) -> MultipleResults[Ticket]:
        taken = self.window.take(limit, now=self.now)
        busy = {ticket.record.key for ticket in self.out}
        keys = [ticket.record.key for ticket in taken]
        assert len(set(keys)) == len(keys), "two records of one key in a batch"
        assert not busy & set(keys), "two records of one key in flight"
        for ticket in taken:
            tp, offset = ticket.record.topic_partition, ticket.record.offset
            older = range(self.committed[tp], offset)
            same_key = [o for o in older if self.log[tp][o] == self.log[tp][offset] and o not in self.finished[tp]]
            assert not same_key, "out of order within its key"
            assert ticket.attempts == self.failures.get((tp, offset), 0)
            if (tp, offset) in self.given_up:
                assert ticket.verdict is not None, "given up on, and handled once more"
            self.out[ticket] = self.epoch[tp]
        return multiple(*taken)

    def give_back(self, ticket: Ticket) -> bool:
        """Forget it in the model; returns whether its partition is still the one it was taken under."""
        self.dying.discard(ticket)
        return self.out.pop(ticket) == self.epoch.get(ticket.record.topic_partition)

    @rule(ticket=consumes(tickets))
    def complete(self, ticket: Ticket) -> None:
        current = self.give_back(ticket)
        assert self.window.complete(ticket) == current
        if current:
            self.finished[ticket.record.topic_partition].add(ticket.record.offset)

    @rule(ticket=consumes(tickets))
    def release(self, ticket: Ticket) -> None:
        """Whether it was handled or being buried: it comes again."""
        if ticket in self.dying:
            self.give_back(ticket)
            self.window.bury_later(ticket, due=self.now + 1)
        else:
            self.give_back(ticket)
            self.window.release(ticket)

    @rule(target=tickets, ticket=consumes(tickets), retry=st.booleans())
    def reject(self, ticket: Ticket, retry: bool) -> Ticket | MultipleResults[Ticket]:
        if ticket.verdict is not None or ticket in self.dying:
            return ticket
        place = (ticket.record.topic_partition, ticket.record.offset)
        current = self.out[ticket] == self.epoch.get(place[0])
        step = self.window.reject(ticket, MAY_PASS if retry else NEVER_PASSES, now=self.now, wall_ms=1)
        if not current:
            assert step is Step.STALE
        else:
            self.failures[place] = self.failures.get(place, 0) + 1
            given_up = not retry or self.failures[place] > len(DELAYS_S)
            assert step is (Step.BURY if given_up else Step.RETRY)
        if step is Step.BURY:
            self.dying.add(ticket)
            return ticket
        self.give_back(ticket)
        return multiple()

    @rule()
    def unblock(self) -> None:
        """Only what was rejected before, waits at the head of its partition, and holds up nearly all of it."""
        for given in self.window.unblock():
            tp, offset = given.topic_partition, given.offset
            unfinished = [o for o in range(self.committed[tp], self.read[tp]) if o not in self.finished[tp]]
            others = [o for o in unfinished if self.log[tp][o] != self.log[tp][offset]]
            assert (self.failures[tp, offset] > 0, offset, others) == (True, unfinished[0], [])
            assert self.read[tp] - offset >= 4, "no crowd"
            assert not any(ticket.record is given for ticket in self.out)
            self.given_up.add((tp, offset))

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def commit(self) -> None:
        position = self.window.progress()
        self.window.committed(position)
        for tp, offset in position.items():
            assert offset >= self.committed[tp], "a commit went back"
            self.committed[tp] = offset
        assert not self.window.progress()

    @invariant()
    def nothing_unfinished_is_committed(self) -> None:
        """Committed, and committable, is at most the lowest unfinished offset, and no more is held back than that."""
        for tp in self.epoch:
            unfinished = [o for o in range(self.committed[tp], self.read[tp]) if o not in self.finished[tp]]
            lowest = min(unfinished, default=self.read[tp])
            watermark = self.window.watermark(tp)
            assert watermark is None or watermark == lowest
            if watermark is None:
                assert self.read[tp] == self.committed[tp]
            oldest = self.window.oldest(tp)
            assert (oldest.offset if oldest else None) == (unfinished[0] if unfinished else None)
        assert self.window.in_flight == len(self.out)
        unfinished_records = sum(self.read[tp] - self.committed[tp] for tp in self.seen) - sum(
            o >= self.committed[tp] for tp in self.seen for o in self.finished[tp]
        )
        assert self.window.size_bytes == 2 * unfinished_records, "a key and a value of a byte each"
        assert set(self.window.partitions) == set(self.epoch)

    def teardown(self) -> None:
        """Whatever happened, giving everything back and working on finishes everything that is assigned."""
        for ticket in list(self.out):
            self.window.complete(ticket)
        for _ in range(200):
            self.now += 60
            for ticket in self.window.take(100, now=self.now):
                self.window.complete(ticket)
        for tp in getattr(self, "epoch", {}):
            assert self.window.oldest(tp) is None, "a record was forgotten"
        assert getattr(self, "window", None) is None or not self.window.full()


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=False)
TestWindowMachine = pytest.mark.rule("C1", "C2", "C3")(TestWindowMachine)
