"""Random histories of whole runners on a fake broker in virtual time: faults of records, stores, broker and members."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import Unavailable
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Done, Outcome, Record, Rejected
from tests.fakes.kafka_keyed import DLQ, GROUP, Bench, Diary, make_bench, running
from tests.fakes.kafka_time import run_virtual

KEYS = ("a", "b", "c", "d")
QUIET_S = 100  # every fault is over by then


@dataclass(frozen=True)
class Story:
    """What happens: per record how often it fails before it passes (None: it never can), and faults at moments."""

    records: list[tuple[str, int | None]]
    slow: list[float]  # seconds that handler calls take, in turn, until QUIET_S
    away: list[tuple[int, int]]  # the store is away from this second, for so many
    broker_away: list[tuple[int, int]]
    members: list[tuple[int, int]]  # further members: join at this second, stay so many
    unacknowledged: int  # so many dead letters are stored, but not acknowledged


def spans(limit: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Up to `limit` spans of time (from, length) in seconds."""
    return st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=limit)


stories = st.builds(
    Story,
    records=st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from([0, 0, 0, 1, 2, 3, 4, None])), min_size=1, max_size=25
    ),
    slow=st.lists(st.sampled_from([0.0, 0.01, 0.5, 3.0, 40.0]), min_size=1, max_size=5),
    away=spans(2),
    broker_away=spans(1),
    members=spans(2),
    unacknowledged=st.integers(0, 2),
)


class Check:
    """Plays a story, and holds the promises against it all the way."""

    def __init__(self, story: Story, bench: Bench) -> None:
        self.story = story
        self.bench = bench
        self.failures: dict[bytes, int] = defaultdict(int)
        self.calls = 0
        self.finished: set[bytes] = set()
        self.diary = Diary(self.decide)
        self.left = story.unacknowledged

    async def decide(self, record: Record) -> Outcome:
        """The handler of every member; a record's value is its number in the story."""
        self.calls += 1
        if self.bench.broker.clock.monotonic() < QUIET_S:
            await asyncio.sleep(self.story.slow[self.calls % len(self.story.slow)])
        now = self.bench.broker.clock.monotonic()
        if any(start <= now < start + length for start, length in self.story.away):
            raise Unavailable("unavailable", "the store is away")
        _, fails = self.story.records[int(record.value)]
        if fails is None:
            if self.left:
                self.left -= 1
                self.bench.sender.acknowledges = 0
            return Rejected("undecodable")
        if self.failures[record.value] < fails:
            self.failures[record.value] += 1
            return Rejected("bug", retry=True)
        self.finished.add(record.value)
        return Done()

    async def watch(self, stop: asyncio.Event) -> None:
        """At every moment: what is committed is finished, which for a dead letter means that it is there."""
        while not stop.is_set():
            buried = {record.value for record in self.bench.broker.records(DLQ)}
            for tp, offset in self.bench.broker.committed[GROUP].items():
                for record in self.bench.broker.logs[tp][:offset]:
                    assert record.value in self.finished | buried, f"{record} is committed, but not finished"
            assert self.diary.overlaps == 0, "two of one key at a time"
            await asyncio.sleep(0.3)

    async def interrupt_broker(self, start: int, length: int) -> None:
        """Take the broker away for a while."""
        await asyncio.sleep(start)
        self.bench.broker.away = True
        await asyncio.sleep(length)
        self.bench.broker.away = False

    async def join(self, start: int, length: int, policy: KeyedPolicy) -> None:
        """One more member for a while."""
        await asyncio.sleep(start)
        runner, _ = self.bench.runner(self.diary, policy=policy)
        async with running(runner):
            await asyncio.sleep(length)


async def play(story: Story) -> None:
    """All of it, then three quiet minutes; by then everything is finished and committed."""
    bench = make_bench(partitions=3)
    check = Check(story, bench)
    for number, (key, _) in enumerate(story.records):
        bench.append(key, value=str(number).encode())
    policy = KeyedPolicy(batch_records_max=3, lanes=3, handler_timeout_s=10)
    runner, _ = bench.runner(check.diary, policy=policy)
    quiet = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(check.watch(quiet))
        async with running(runner), asyncio.TaskGroup() as faults:
            for start, length in story.broker_away:
                faults.create_task(check.interrupt_broker(start, length))
            for start, length in story.members:
                faults.create_task(check.join(start, length, policy))
            faults.create_task(asyncio.sleep(QUIET_S + 180 + 45 * len(story.records)))
        quiet.set()

    assert bench.committed() == len(story.records), "not everything was finished"
    hopeless = {str(n).encode() for n, (_, fails) in enumerate(story.records) if fails is None}
    buried = {record.value for record in bench.broker.records(DLQ)}
    assert hopeless <= buried
    passing = {str(n).encode() for n, (_, fails) in enumerate(story.records) if fails is not None and fails <= 3}
    assert passing <= check.finished
    if not (story.away or story.broker_away or story.members):
        assert not passing & buried, "given up too early"
    for key in KEYS:
        first_seen = list(dict.fromkeys(int(value) for value in check.diary.values(key.encode())))
        assert first_seen == sorted(first_seen), "a key's records were first handled out of order"


@pytest.mark.rule("C1", "C2", "C3", "P1")
@settings(max_examples=40, deadline=None)
@given(story=stories)
def test_whatever_happens_everything_is_finished_in_order(story: Story) -> None:
    """Never is anything unfinished committed, no key handled twice at a time or out of order; in the end all is done,
    what could pass has passed, and what could not is a dead letter.
    """
    run_virtual(play(story))
