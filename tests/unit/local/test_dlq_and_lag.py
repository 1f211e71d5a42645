"""`linkmesh dlq` and `linkmesh lag`: what they print, and how they end; the broker's part is in tests/integration."""

import sys
from pathlib import Path

import pytest

from chassis.kafka.dead_letter_store import Replayed
from chassis.kafka.dlq import DeadLetter, dead_letter_message
from chassis.kafka.lag import PartitionLag
from chassis.kafka.letters import Letter, Purge, sort_out
from chassis.kafka.record import Record, Rejected
from contracts.topics import GROUPS, TOPICS, WITH_DEAD_LETTERS, dead_letter_topic
from linkmesh.cli import dlq_text, lag, main, terminal
from linkmesh.cli.progress import counted
from shortener.events.v1.link_events_pb2 import EventHeader, LinkCreated

NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z


def letters(count: int) -> list[Letter]:
    """Letters of group g, of which the first is the oldest."""
    records = []
    for number in range(count):
        failed = Record("t", 0, number, NOW_MS - 1, f"k{number}".encode(), b"\xff", (("ce_id", b"1"),))
        message = dead_letter_message(DeadLetter(failed, Rejected("undecodable", "why"), 1, NOW_MS), "g")
        records.append(Record("t-dlq", 0, number, NOW_MS, message.key, message.value, message.headers))
    return list(sort_out(records, {}).letters)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", None),
        ("90s", NOW_MS - 90_000),
        ("30m", NOW_MS - 1_800_000),
        ("2h", NOW_MS - 7_200_000),
        ("7d", NOW_MS - 7 * 86_400_000),
        ("99999d", 0),
        ("2027-01-15T08:00:00Z", NOW_MS),
        ("2027-01-15T09:00:00+01:00", NOW_MS),
        ("2027-01-15T08:00:00", NOW_MS),
    ],
)
def test_moments(given: str, expected: int | None) -> None:
    """An age, or a time; one without a zone is UTC, as everything that is printed."""
    assert dlq_text.moment_ms(given, now_ms=NOW_MS) == expected


@pytest.mark.parametrize("given", ["2", "h", "2w", "-2h", "yesterday", "99999999999d"])
def test_what_is_no_moment(given: str) -> None:
    """Anything else is refused, not guessed at."""
    with pytest.raises(ValueError, match="is no time"):
        dlq_text.moment_ms(given, now_ms=NOW_MS)


def test_the_listing_shows_the_newest_and_the_counts_of_all() -> None:
    """A limit cuts the table, never the counts; severity stands beside each."""
    held = letters(7)
    summary = dlq_text.summary(sort_out([letter.record for letter in held], {}), held, now_ms=NOW_MS)
    shown = dlq_text.listing(held, 2, summary)

    assert summary == {
        "last_hour": [{"group": "g", "count": 7, "severity": "warning", "stopped": False}],
        "per_hour": [{"hour": "2027-01-15T08:00:00Z", "group": "g", "count": 7, "severity": "warning"}],
    }
    assert "the newest 2 of 7" in shown
    assert "t-dlq/0/6" in shown
    assert "t-dlq/0/4" not in shown
    assert "2027-01-15T08:00  g      7      warning" in shown


def test_a_letter_in_full() -> None:
    """Where it stood, its own headers without those of the burial, and its bytes, which need not be text."""
    (letter,) = letters(1)
    told = dlq_text.full(letter)

    assert told["record"] == {"topic": "t", "partition": 0, "offset": 0, "stored_at": "2027-01-15T07:59:59Z"}
    assert (told["headers"], told["value_base64"], told["value"]) == ([["ce_id", "1"]], "/w==", None)
    assert "\n  \\xff" in dlq_text.page(letter)


def test_what_an_event_says_is_protobufs_json() -> None:
    """A person, and `jq`, can read it; also one that nobody may apply, such as without an id."""
    event = LinkCreated(header=EventHeader(version=3, user_id="ada"))
    failed = Record(
        "t", 0, 1, NOW_MS, b"k", event.SerializeToString(), (("ce_type", event.DESCRIPTOR.full_name.encode()),)
    )
    message = dead_letter_message(DeadLetter(failed, Rejected("undecodable", "why"), 1, NOW_MS), "g")
    record = Record("t-dlq", 0, 1, NOW_MS, message.key, message.value, message.headers)
    (letter,) = sort_out([record], {}).letters

    assert dlq_text.full(letter)["value"] == {"header": {"version": "3", "user_id": "ada"}}
    assert '  "header": {\n      "version": "3",' in dlq_text.page(letter)


def test_a_group_that_says_it_has_stopped_is_listed_when_its_letters_are_purged() -> None:
    """The process counted what is gone, and waits for a person: a list without it would say that all goes well."""
    summary = dlq_text.summary(sort_out([], {}), [], now_ms=NOW_MS, stopped_too={"g"})

    assert summary["last_hour"] == [{"group": "g", "count": 0, "severity": "normal", "stopped": True}]
    assert "linkmesh dlq resume g" in dlq_text.listing([], 10, summary)


def test_sentences_tell_what_was_done_and_what_was_not() -> None:
    """What another call did, what stays behind, and nothing at all, each in words."""
    held = letters(3)

    assert dlq_text.replayed(Replayed(0, 0, 0)) == "nothing to replay"
    assert dlq_text.replayed(Replayed(0, 2, 1)).splitlines()[1:] == [
        "2 had been sent by a call that did not end",
        "1 are replayed by another call that runs now",
    ]
    assert dlq_text.purged(Purge({}, held[:2], held[2:]), "deleted") == (
        "2 dead letters deleted, 2 of them never replayed; 1 of those meant must stay, behind one that is not meant"
        " or the note of a `resume` within 24 hours"
    )
    assert dlq_text.purged(Purge({}, held[:1], []), "deleted") == "1 dead letter deleted, 1 of them never replayed"


def row(seconds: float, records: int = 0, partition: int = 0) -> PartitionLag:
    """A partition of group g."""
    return PartitionLag("g", "t", partition, records, seconds, 1, 1 + records, "")


@pytest.mark.parametrize(("seconds", "filled"), [(0.0, 0), (0.09, 0), (0.1, 1), (15.0, 10), (30.0, 20), (900.0, 20)])
def test_the_bar(seconds: float, filled: int) -> None:
    """Empty while healthy, full at 30 s, never longer."""
    assert lag.bar(seconds) == "█" * filled + "░" * (20 - filled)


def test_the_table_of_lag() -> None:
    """Group, topic, partition, records, seconds, bar, level, owner."""
    assert lag.cells([row(6.04, 3)])[1] == ("g", "t", "0", "3", "6.0 s", "████░░░░░░░░░░░░░░░░", "warning", "-")


def test_a_low_terminal_keeps_what_is_furthest_behind() -> None:
    """What does not fit is what lags least; the order of the table stays."""
    rows = [row(0.0, partition=0), row(9.0, partition=1), row(0.0, 5, partition=2), row(40.0, partition=3)]

    kept, hidden = lag.fold(rows, 3)

    assert ([r.partition for r in kept], hidden) == ([1, 2, 3], 1)
    assert lag.fold(rows, 10) == (rows, 0)


def test_no_bar_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress is for people: a pipe gets nothing."""
    with counted("replaying", 3) as advance:
        advance(3)

    assert capsys.readouterr() == ("", "")


def test_groups_and_dead_letter_topics_are_those_of_the_table() -> None:
    """The tools know every group with its topics, and every dead letter topic there is."""
    assert GROUPS["database-writer"] == ("links-events",)
    assert set(GROUPS) == {group for topic in TOPICS for group in topic.groups}
    names = {topic.name for topic in TOPICS}
    assert {dead_letter_topic(name) for name in WITH_DEAD_LETTERS} == {n for n in names if n.endswith("-dlq")}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["lag", "--group", "nobody"], terminal.NOT_FOUND),
        (["lag", "--once"], terminal.NOT_FOUND),
        (["dlq", "list"], terminal.NOT_FOUND),
        (["dlq", "list", "--since", "soon"], terminal.USAGE),
        (["dlq", "resume", "cache-refresher"], terminal.NOT_FOUND),
        (["dlq", "resume", "database-writer"], terminal.NOT_FOUND),
        (["dlq", "replay", "--dry-run"], terminal.NOT_FOUND),
        (["dlq", "purge", "--yes"], terminal.NOT_FOUND),
    ],
)
@pytest.mark.parametrize("kafka", ["", "127.0.0.1:1"])
def test_how_commands_end_without_a_broker(
    arguments: list[str], code: int, kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs, or nobody answers there: exit 3 and a line; a time that is none: exit 2."""
    monkeypatch.delenv("LINKMESH_KAFKA", raising=False)
    if kafka:
        monkeypatch.setenv("LINKMESH_KAFKA", kafka)
    monkeypatch.setattr(sys, "argv", ["linkmesh", *arguments, "--state", str(tmp_path)])

    with pytest.raises(SystemExit) as caught:
        main.main()

    assert caught.value.code == code
