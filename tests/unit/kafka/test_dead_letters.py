"""Dead letters and their breaker, apart from any runner."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from chassis.kafka.dlq import (
    BURIAL_MAX_S,
    SEND_TIMEOUT_S,
    DeadLetter,
    NoDeadLetters,
    TopicDeadLetters,
    dead_letter_message,
    resume_message,
)
from chassis.kafka.keyed import KeyedPolicy
from chassis.kafka.record import Record, Rejected
from tests.fakes.kafka import FakeBroker, FakeSender
from tests.fakes.kafka_time import VirtualClock, run_virtual

RECORD = Record("t", 3, 17, 1_700_000_000_000, b"key", b"\x00value", (("ce_id", b"1"), ("dlq_reason", b"earlier")))
LETTER = DeadLetter(RECORD, Rejected("conflict", "ü" * 2000), attempts=4, first_failed_at_ms=1_700_000_000_500)
OTHERS = (replace(LETTER, record=replace(RECORD, offset=offset)) for offset in count(100))  # each of its own record


def test_the_letter_is_the_record_with_its_story_behind() -> None:
    """Key, value and the record's own headers are untouched and first; where, why and how often follow, bounded."""
    message = dead_letter_message(LETTER, "writer")
    added = dict(message.headers[2:])

    assert (message.topic, message.key, message.value) == ("t-dlq", b"key", b"\x00value")
    assert message.headers[:2] == RECORD.headers
    assert added["dlq_reason"] == b"conflict"
    assert added["dlq_offset"] == b"17"
    assert added["dlq_partition"] == b"3"
    assert added["dlq_attempts"] == b"4"
    assert added["dlq_group"] == b"writer"
    assert added["dlq_first_failed_at"] == b"2023-11-14T22:13:20.500+00:00"
    assert len(added["dlq_detail"]) <= 1024


class World:
    """A broker with a DLQ, in virtual time."""

    def __init__(self) -> None:
        self.broker = FakeBroker(VirtualClock(), {"t-dlq": 2})
        self.sender = FakeSender(self.broker)
        self.blind = False  # the broker takes letters, and does not say what it has

    def letters(self, group: str = "g", per_hour_max: int = 2) -> TopicDeadLetters:
        """Dead letters of a process of that group."""

        async def history() -> Sequence[Record]:
            if self.broker.away or self.blind:
                raise Unavailable("unavailable", "no broker")
            return self.broker.records("t-dlq")

        return TopicDeadLetters(
            sender=self.sender, history=history, clock=self.broker.clock, group=group, per_hour_max=per_hour_max
        )


@pytest.mark.rule("C5")
def test_the_breaker_counts_an_hour() -> None:
    """Letters spread over more than an hour never trip it; one more than the limit within an hour does, for good."""

    async def scenario() -> None:
        letters = World().letters(per_hour_max=2)
        await letters.open()
        for _ in range(10):
            await letters.send(next(OTHERS))
            await asyncio.sleep(1801)
        slow = letters.tripped()
        for _ in range(2):
            await letters.send(next(OTHERS))
        await letters.send(next(OTHERS))  # of work that was in flight when it tripped
        await asyncio.sleep(9000)

        assert not slow
        assert letters.tripped()
        assert not await letters.resumed()

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_a_restart_counts_from_the_topic_and_other_groups_do_not_count() -> None:
    """A new process finds the breaker as the last one left it; another group's letters are none of its business."""

    async def scenario() -> None:
        world = World()
        first = world.letters("g")
        await first.open()
        for _ in range(3):
            await first.send(next(OTHERS))
        same, other = world.letters("g"), world.letters("h")
        await same.open()
        await other.open()

        assert (first.tripped(), same.tripped(), other.tripped()) == (True, True, False)

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_what_another_process_buried_counts_here() -> None:
    """Each of two processes stays below the limit, both together do not: both stop, and the first one sees it before
    it would bury another.
    """

    async def scenario() -> None:
        world = World()
        first, second = world.letters("g"), world.letters("g")
        await first.open()
        await second.open()
        await first.send(next(OTHERS))
        await first.send(next(OTHERS))
        both_below = not first.tripped()
        await second.send(next(OTHERS))
        await asyncio.sleep(11)
        with pytest.raises(Unavailable):
            await first.send(next(OTHERS))

        assert both_below
        assert first.tripped()
        assert second.tripped()
        assert REGISTRY.get_sample_value("consumer_stopped", {"group": "g"}) == 1
        assert REGISTRY.get_sample_value("dead_letters_last_hour", {"group": "g"}) == 3
        assert len(world.broker.records("t-dlq")) == 3

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_a_record_buried_twice_counts_once() -> None:
    """A process that died between burial and commit leaves the same letter again: that is one record given up on."""

    async def scenario() -> None:
        world = World()
        letters = world.letters("g", per_hour_max=1)
        await letters.open()
        for _ in range(5):
            await letters.send(LETTER)
        repeats = letters.tripped()
        await letters.send(next(OTHERS))

        assert (repeats, letters.tripped()) == (False, True)

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_a_letter_that_could_not_be_counted_is_counted_before_the_next() -> None:
    """The broker took the letter and then did not say what stands in the topic: no other letter until it does."""

    async def scenario() -> None:
        world = World()
        letters = world.letters("g", per_hour_max=1)
        await letters.open()

        world.blind = True
        await letters.send(next(OTHERS))
        with pytest.raises(Unavailable):
            await letters.send(next(OTHERS))
        stored = len(world.broker.records("t-dlq"))
        world.blind = False
        await letters.send(next(OTHERS))

        assert stored == 1
        assert letters.tripped()

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_a_burial_ends_in_time_and_an_acknowledged_letter_is_buried() -> None:
    """All of it, with a look before and one behind that hang, takes less than the runner waits: cut off behind the
    acknowledgement, the letter would be written again and again."""

    async def scenario() -> None:
        clock, hangs = VirtualClock(), False
        world = World()

        async def history() -> Sequence[Record]:
            if hangs:
                await clock.sleep(60)
            return world.broker.records("t-dlq")

        letters = TopicDeadLetters(sender=world.sender, history=history, clock=clock, group="g")
        await letters.open()
        hangs = True

        started = clock.monotonic()
        await letters.send(next(OTHERS))  # and this look hangs
        behind_s = clock.monotonic() - started
        with pytest.raises(Unavailable):
            await letters.send(next(OTHERS))
        before_s = clock.monotonic() - started - behind_s

        assert len(world.broker.records("t-dlq")) == 1
        assert before_s + SEND_TIMEOUT_S + behind_s <= BURIAL_MAX_S < KeyedPolicy().burial_timeout_s

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_a_night_does_not_clear_the_breaker() -> None:
    """A process that starts hours later still finds that its group has stopped itself, and that nobody has come."""

    async def scenario() -> None:
        world = World()
        first = world.letters("g")
        await first.open()
        for _ in range(3):
            await first.send(next(OTHERS))
        await asyncio.sleep(9 * 3600)
        second = world.letters("g")
        await second.open()
        next_morning = second.tripped()
        await world.sender.send_in_order([resume_message("t", "g")], timeout_s=1)
        third = world.letters("g")
        await third.open()

        assert (next_morning, third.tripped()) == (True, False)
        assert REGISTRY.get_sample_value("dead_letters_last_hour", {"group": "g"}) == 0

    run_virtual(scenario())


@pytest.mark.rule("C5")
def test_a_resumption_closes_the_breaker_of_its_group_once() -> None:
    """Only a resumption of this group, newer than the letters, closes it; the next trip needs a new one."""

    async def scenario() -> None:
        world = World()
        letters = world.letters("g")
        await letters.open()
        for _ in range(3):
            await letters.send(next(OTHERS))
        await asyncio.sleep(1)
        await world.sender.send_in_order([resume_message("t", "other")], timeout_s=1)
        by_other = await letters.resumed()
        await world.sender.send_in_order([resume_message("t", "g")], timeout_s=1)
        by_own, open_again = await letters.resumed(), not letters.tripped()
        await asyncio.sleep(1)
        for _ in range(3):
            await letters.send(next(OTHERS))
        tripped_again, by_the_old_one = letters.tripped(), await letters.resumed()

        assert (by_other, by_own, open_again) == (False, True, True)
        assert (tripped_again, by_the_old_one) == (True, False)

    run_virtual(scenario())


def test_an_unacknowledged_letter_is_an_error() -> None:
    """Without the broker's acknowledgement send raises, and open does without an answer; neither counts anything."""

    async def scenario() -> None:
        world = World()
        letters = world.letters()
        world.broker.away = True
        with pytest.raises(Unavailable):
            await letters.open()
        with pytest.raises(Unavailable):
            await letters.send(next(OTHERS))
        world.broker.away = False
        await letters.open()

        assert world.broker.records("t-dlq") == []
        assert not letters.tripped()

    run_virtual(scenario())


def test_hints_have_no_dead_letters() -> None:
    """Where there is no DLQ nothing is sent and nothing trips."""

    async def scenario() -> None:
        letters = NoDeadLetters()
        await letters.open()
        for _ in range(100):
            await letters.send(next(OTHERS))

        assert not letters.tripped()
        assert await letters.resumed()

    run_virtual(scenario())
