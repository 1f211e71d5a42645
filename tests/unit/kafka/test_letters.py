"""Reading a dead letter topic, choosing letters, and planning what may be deleted."""

from dataclasses import replace

import pytest

from chassis.kafka.dead_letter_counts import Severity, last_hour, per_hour, severity
from chassis.kafka.dlq import DeadLetter, cut_dead_letter_message, dead_letter_message, resume_message
from chassis.kafka.letters import (
    Contents,
    Fate,
    Letter,
    Selection,
    first_claims,
    note_message,
    plan_purge,
    replay_message,
    replayed_among,
    sort_out,
)
from chassis.kafka.record import Headers, Message, Record, Rejected, TopicPartition

HOUR_MS = 3_600_000
NOW_MS = 500_000 * HOUR_MS + 1_800_000
DLQ = TopicPartition("t-dlq", 1)
HEADERS: Headers = (("ce_id", b"1"), ("dlq_reason", b"its own"))


class Shelf:
    """Builds the records of partition 1 of a dead letter topic, one a second up to now."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, message: Message, *, age_ms: int = 0) -> Record:
        """Store a message as the broker would."""
        record = Record(
            message.topic, 1, len(self.records), NOW_MS - age_ms, message.key, message.value, message.headers
        )
        self.records.append(record)
        return record

    def bury(
        self,
        key: str,
        offset: int,
        *,
        group: str = "g",
        reason: str = "conflict",
        age_ms: int = 0,
        headers: Headers = HEADERS,
    ) -> Record:
        """Store the letter of a record that stood at this offset of partition 3 of `t`."""
        failed = Record("t", 3, offset, 1000 + offset, key.encode(), b"value", headers)
        letter = DeadLetter(failed, Rejected(reason, "why"), 2, 1_700_000_000_000)
        return self.add(dead_letter_message(letter, group), age_ms=age_ms)

    def note(self, note: str, *offsets: int, call: str = "c") -> Record:
        """Store a note."""
        return self.add(note_message(DLQ, note, offsets, call))

    def contents(self) -> Contents:
        """What it all says."""
        return sort_out(self.records, {DLQ: len(self.records)})


def fates(contents: Contents) -> list[Fate]:
    """What became of each letter."""
    return [letter.fate for letter in contents.letters]


def test_a_letter_tells_its_story_and_gives_back_the_records_own_headers() -> None:
    """All that was added at the burial is read and taken off again, also if the record had such a header, or the
    producer put the trace behind; the rest is as it was.
    """
    shelf = Shelf()
    stored = shelf.bury("k", 17)
    shelf.records[0] = replace(stored, headers=(*stored.headers, ("traceparent", b"00-1")))

    (letter,) = shelf.contents().letters

    assert (letter.group, letter.topic, letter.partition, letter.offset, letter.timestamp_ms) == ("g", "t", 3, 17, 1017)
    assert (letter.reason, letter.detail, letter.attempts) == ("conflict", "why", 2)
    assert letter.headers == (*HEADERS, ("traceparent", b"00-1"))
    assert letter.id == "t-dlq/1/0"


@pytest.mark.rule("A9", "C5")
def test_a_replay_is_the_record_itself_for_one_group() -> None:
    """Key, value, headers and partition are the original's; three headers say for whom, of what, from which letter.
    Replaying what failed again keeps where the record stood first, and has each of the three once.
    """
    shelf = Shelf()
    shelf.bury("k", 17)
    first = replay_message(shelf.contents().letters[0])
    shelf.bury("k", 40, headers=first.headers)
    again = replay_message(shelf.contents().letters[1])

    assert (first.topic, first.partition, first.key, first.value) == ("t", 3, b"k", b"value")
    assert first.headers[:2] == HEADERS
    assert dict(first.headers[2:]) == {"replay_for": b"g", "replay_of": b"3/17/1017", "replay_letter": b"1/0"}
    assert again.headers[:2] == HEADERS
    assert dict(again.headers[2:]) == {"replay_for": b"g", "replay_of": b"3/17/1017", "replay_letter": b"1/1"}
    assert len(again.headers) == 5


def test_notes_decide_the_fate() -> None:
    """Claimed, sent and lapsed notes in their order; a sent letter stays sent; a claim ends by its own lapse only."""
    shelf = Shelf()
    for offset in range(5):
        shelf.bury("k", offset)
    claim = shelf.note("claimed", 1, 2, 3)
    shelf.note("sent", 1)
    before = fates(shelf.contents())
    shelf.note("lapsed", claim.offset)
    shelf.note("claimed", 3)

    after = shelf.contents()

    waiting, claimed, replayed = Fate.WAITING, Fate.CLAIMED, Fate.REPLAYED
    assert before == [waiting, replayed, claimed, claimed, waiting]
    assert fates(after) == [waiting, replayed, waiting, claimed, waiting]
    assert [sorted(claim.offsets) for claim in after.open_claims] == [[3]]
    assert after.sent == {(DLQ, 1)}


@pytest.mark.rule("C1", "B1")
def test_a_letter_without_its_value_is_never_waiting_to_be_replayed() -> None:
    """Replayed empty, it would be another record under the same key: a false leaf, and a second dead letter."""
    shelf = Shelf()
    failed = Record("t", 3, 17, 1017, b"k", b"value", HEADERS)
    letter = DeadLetter(failed, Rejected("too_large", "why"), 1, 1_700_000_000_000)
    shelf.add(cut_dead_letter_message(letter, "g"))
    shelf.bury("k", 18)

    assert fates(shelf.contents()) == [Fate.CUT, Fate.WAITING]


def test_a_record_that_was_buried_twice_is_one_letter() -> None:
    """A crash between the burial and the commit repeats the letter: the repeat is a copy, other groups' are not."""
    shelf = Shelf()
    shelf.bury("k", 1)
    shelf.bury("k", 1)
    shelf.bury("k", 1, group="other")

    assert fates(shelf.contents()) == [Fate.WAITING, Fate.COPY, Fate.WAITING]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("dlq_group", b"g"),),
        (("dlq_group", b"g"), ("dlq_topic", b"t"), ("dlq_offset", b"x")),
        (("dlq_replay", b"claimed"),),
        (("dlq_replay", b"unheard of"),),
    ],
)
def test_what_is_neither_letter_nor_note_is_a_stranger(headers: Headers) -> None:
    """Foreign or broken records are set apart, never raised on."""
    shelf = Shelf()
    shelf.add(Message("t-dlq", b"k", b"no json", headers))

    contents = shelf.contents()

    assert (len(contents.strangers), len(contents.letters), contents.open_claims) == (1, 0, [])


def letter_of(age_ms: int = 0) -> Letter:
    """A letter of group g, reason conflict, code k."""
    shelf = Shelf()
    shelf.bury("k", 1, age_ms=age_ms)
    return shelf.contents().letters[0]


@pytest.mark.parametrize(
    ("selection", "picked"),
    [
        (Selection(), True),
        (Selection(group="g", reason="conflict", code="k"), True),
        (Selection(group="h"), False),
        (Selection(reason="undecodable"), False),
        (Selection(code="K"), False),
        (Selection(since_ms=NOW_MS), True),
        (Selection(since_ms=NOW_MS + 1), False),
        (Selection(until_ms=NOW_MS + 1), True),
        (Selection(until_ms=NOW_MS), False),
        (Selection(ids=frozenset({"t-dlq/1/0"})), True),
        (Selection(ids=frozenset({"t-dlq/1/1"})), False),
        (Selection(fates=frozenset({Fate.REPLAYED})), False),
    ],
)
def test_a_selection_narrows_by_each_of_its_fields(selection: Selection, picked: bool) -> None:
    """Every filter that is given must hold; the lower end of the time is in, the upper one out."""
    assert selection.picks(letter_of()) is picked


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, Severity.NORMAL),
        (5, Severity.NORMAL),
        (6, Severity.WARNING),
        (50, Severity.WARNING),
        (51, Severity.CRITICAL),
    ],
)
def test_severity(count: int, expected: Severity) -> None:
    """Up to 5 an hour are normal, up to 50 deserve a look, more stop the group."""
    assert severity(count) is expected


@pytest.mark.rule("C5")
def test_counts_by_hour_and_towards_the_breaker() -> None:
    """By the hour of the burial and by group; the breaker counts 60 minutes back, or from the group's resumption."""
    shelf = Shelf()
    shelf.bury("a", 1, age_ms=2 * HOUR_MS)
    shelf.bury("b", 2, age_ms=50 * 60_000)
    shelf.bury("c", 3, age_ms=20 * 60_000)
    shelf.bury("d", 4, age_ms=60_000, group="other")
    before = shelf.contents()
    shelf.add(resume_message("t", "g"), age_ms=30 * 60_000)

    assert per_hour(before.letters) == {(500_000, "g"): 1, (500_000, "other"): 1, (499_999, "g"): 1, (499_998, "g"): 1}
    assert [last_hour(before, group, now_ms=NOW_MS) for group in ("g", "other", "none")] == [2, 1, 0]
    assert last_hour(shelf.contents(), "g", now_ms=NOW_MS) == 1


def test_a_purge_stops_at_the_first_letter_that_stays() -> None:
    """A partition can be deleted from its front only: what is meant behind a letter that stays is kept, and told."""
    shelf = Shelf()
    shelf.bury("a", 1)
    shelf.bury("b", 2)
    shelf.note("claimed", 0)
    shelf.bury("c", 3, reason="undecodable")
    shelf.bury("d", 4)

    purge = plan_purge(shelf.contents(), Selection(reason="conflict"), now_ms=NOW_MS)

    assert purge.position == {DLQ: 3}
    assert [letter.offset for letter in purge.letters] == [1, 2]
    assert [letter.offset for letter in purge.kept] == [4]


def test_a_purge_of_everything_goes_to_the_end_and_none_touches_nothing() -> None:
    """With all letters meant the notes go, too; with none a partition is left alone."""
    shelf = Shelf()
    shelf.bury("a", 1)
    shelf.note("sent", 0)

    assert plan_purge(shelf.contents(), Selection(), now_ms=NOW_MS).position == {DLQ: 2}
    assert plan_purge(shelf.contents(), Selection(group="h"), now_ms=NOW_MS).position == {}


@pytest.mark.rule("C5")
def test_a_purge_keeps_a_young_resumption_and_strangers() -> None:
    """Without the resumption a restart would count the letters of other partitions before it again; an old one may go.
    What nobody knows is never deleted.
    """
    young, old, foreign = Shelf(), Shelf(), Shelf()
    young.add(resume_message("t", "g"), age_ms=24 * HOUR_MS - 1)
    old.add(resume_message("t", "g"), age_ms=24 * HOUR_MS)
    foreign.add(Message("t-dlq", b"", b""))
    for shelf in (young, old, foreign):
        shelf.bury("a", 1)

    purges = [plan_purge(shelf.contents(), Selection(), now_ms=NOW_MS) for shelf in (young, old, foreign)]

    assert [purge.position for purge in purges] == [{}, {DLQ: 2}, {}]
    assert [len(purge.kept) for purge in purges] == [1, 0, 1]


def test_of_two_claims_the_first_counts() -> None:
    """Calls that run side by side see the same order of notes, so each letter has one holder."""
    shelf = Shelf()
    shelf.note("claimed", 1, 2, call="a")
    shelf.note("claimed", 2, 3, call="b")

    assert first_claims(reversed(shelf.contents().open_claims)) == {1: "a", 2: "a", 3: "b"}


def test_replays_are_recognised_in_their_topic() -> None:
    """By the letter they were made of and the group they are for; the group's own records are none."""
    shelf = Shelf()
    shelf.bury("a", 1)
    shelf.bury("b", 2, group="other")
    shelf.bury("c", 3)
    letters = shelf.contents().letters
    sent = [replay_message(letter) for letter in letters[:2]]
    records = [Record("t", 3, 50, NOW_MS, m.key, m.value, m.headers) for m in sent]

    assert replayed_among(letters, records) == {0, 1}
    assert replayed_among(letters, [replace(records[0], headers=HEADERS)]) == set()
    assert replayed_among(letters, [replace(records[0], topic="u")]) == set()
