"""The book keeps its bounds, and knows what is stored, what is not, and up to when it has counted."""

from dataclasses import replace

import pytest

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint, LogView, is_another_log, next_epoch
from analytics.domain.clicks import DAY_HOURS, HOUR_MS, Arrival, Hour, RowId
from analytics.domain.ledger import Accounts
from analytics.domain.rows import Applied, RowImage
from analytics.domain.sequences import Spool
from contracts.link import UserId
from tests.fakes.analytics_clicks import SPOOL, T0_MS, arrival, click

NOW = T0_MS + HOUR_MS


def fold(book: Book, *arrivals: Arrival) -> None:
    """Fold records whose rows nobody has stored."""
    book.admit(book.missing(arrivals), {})
    book.fold(arrivals)


def flush(book: Book, partition: int = 0) -> None:
    """A round that succeeds."""
    begun = book.begin_round(partition)
    assert begun is not None
    for write in book.writes(begun.rows):
        book.written(write.image)
    book.saved(begun.checkpoint)


def held(*partitions: int, rows_max: int = 100, dirty_max: int = 100) -> Book:
    """A book that holds these partitions from their start."""
    book = Book(rows_max=rows_max, dirty_max=dirty_max)
    for partition in partitions:
        book.assign(Checkpoint(partition))
    return book


@pytest.mark.rule("A6")
def test_clean_rows_leave_first_to_come_first_to_go() -> None:
    """Over the limit the rows that have been clean the longest are dropped; dirty ones never are."""
    book = held(0, rows_max=3)
    for offset, key in enumerate(["a", "b", "c"]):
        fold(book, arrival(offset, click(key)))
        flush(book)
    fold(book, arrival(3, click("a")))  # dirty again

    fold(book, arrival(4, click("d")), arrival(5, click("e")))

    missing = book.missing([arrival(6 + place, click(key)) for place, key in enumerate("abcde")])
    assert sorted(row_id.key for row_id in missing if isinstance(row_id, RowId)) == ["b", "c"]
    assert (book.dirty, book.clean) == (3, 0)


@pytest.mark.rule("A6")
def test_too_many_dirty_rows_are_told() -> None:
    """At half of the limit it is time to write, at the limit nothing more may be folded; a flush makes room."""
    book = held(0, 1, dirty_max=4)
    fold(book, arrival(0, click("a")), arrival(0, click("b"), partition=1), arrival(1, click("c"), partition=1))
    assert book.pressed
    states = [book.full]
    assert book.dirtiest() == 1
    fold(book, arrival(1, click("d")))
    states.append(book.full)

    flush(book, 1)
    states.append(book.full)

    assert states == [False, True, False]


@pytest.mark.rule("A3")
def test_a_round_is_of_the_moment_it_begins() -> None:
    """What is folded while a round is written is in the rows perhaps, but never in its checkpoint, and stays dirty."""
    book = held(0)
    fold(book, arrival(0, click(), spool="1"))
    begun = book.begin_round(0)
    assert begun is not None
    images = [write.image for write in book.writes(begun.rows)]

    fold(book, arrival(1, click(), spool="1", first=2))
    book.written(images[0])
    book.saved(begun.checkpoint)

    assert begun.checkpoint == Checkpoint(0, 1, 1, T0_MS, Accounts({SPOOL + "1": Spool(1, 1)}))
    assert book.saved_offset(0) == 1
    assert book.dirty == 1
    again = book.begin_round(0)
    assert again is not None
    assert again.checkpoint.offset == 2


def test_a_quiet_partition_has_nothing_to_flush() -> None:
    """No round without a new record, and none of a partition that is not held."""
    book = held(0)
    assert book.begin_round(0) is None
    fold(book, arrival(0))  # no click, but the position moved
    flush(book)

    assert book.saved_offset(0) == 1
    assert book.begin_round(0) is None
    assert book.begin_round(7) is None


@pytest.mark.rule("A4")
def test_a_round_of_a_former_holding_is_void() -> None:
    """Taken away and given back while a round runs: rows of the round may be gone, so its checkpoint must not count."""
    book = held(0)
    fold(book, arrival(0, click()))
    begun = book.begin_round(0)
    assert begun is not None
    assert book.is_current(begun)

    book.assign(Checkpoint(0))

    assert not book.is_current(begun)
    assert book.writes(begun.rows) == []


@pytest.mark.rule("A4")
def test_a_refused_row_takes_what_is_newer() -> None:
    """A zombie has written more than we hold: its version is ours then, and not counted again."""
    book = held(0)
    fold(book, arrival(0, click()), arrival(1, click()))
    zombie = Book(rows_max=9, dirty_max=9)
    zombie.assign(Checkpoint(0))
    fold(zombie, *[arrival(offset, click()) for offset in range(5)])
    row_id = RowId(click().key, Hour(T0_MS // HOUR_MS), 0)
    theirs = zombie.read(row_id.key, 0, range(row_id.hour, row_id.hour + 1))[0]
    ours = book.writes([row_id])[0].image
    assert isinstance(ours, RowImage)

    assert book.refused(ours, theirs)

    fold(book, *[arrival(offset, click()) for offset in range(2, 6)])
    row = book.read(row_id.key, 0, range(row_id.hour, row_id.hour + 1))[0]
    assert (row.human, row.applied) == (6, Applied(1, 5))


@pytest.mark.rule("A4")
def test_a_refused_row_that_is_older_is_written_again() -> None:
    """The table has less than we do, or nothing: not covered; the next write knows what is there."""
    book = held(0)
    fold(book, arrival(0, click()))
    begun = book.begin_round(0)
    assert begun is not None
    (write,) = book.writes(begun.rows)
    assert not write.stored

    assert not book.refused(write.image, replace(write.image, applied=Applied(0, 0)))
    (again,) = book.writes(begun.rows)
    assert again.stored
    assert not book.refused(again.image, None)
    (anew,) = book.writes(begun.rows)
    assert not anew.stored


@pytest.mark.rule("A7")
def test_counted_until_is_never_too_late() -> None:
    """The time of the last folded record; at the end of the log the time at which that was the end."""
    book = held(0)
    fold(book, arrival(0, click(), stored_ms=NOW))
    assert book.counted_until_ms(0) == NOW

    book.seen_end(0, 3, at_ms=NOW + 1000)
    assert book.counted_until_ms(0) == NOW
    fold(book, arrival(1, click(), stored_ms=NOW + 10))
    assert book.counted_until_ms(0) == NOW + 10
    fold(book, arrival(2, click(), stored_ms=NOW + 20))
    assert book.counted_until_ms(0) == NOW + 1000

    book.seen_end(0, 3, at_ms=NOW + 5000)
    assert book.counted_until_ms(0) == NOW + 5000
    book.seen_end(9, 3, at_ms=NOW)  # not held: nothing


@pytest.mark.rule("S5")
def test_old_spools_are_forgotten() -> None:
    """A checkpoint does not carry spools of more than seven days for ever."""
    book = Book(rows_max=9, dirty_max=9)
    book.assign(Checkpoint(0, accounts=Accounts({SPOOL + "1": Spool(9, 9)})))
    fold(book, arrival(0, stored_ms=T0_MS + 8 * 24 * HOUR_MS))

    begun = book.begin_round(0)

    assert begun is not None
    assert begun.checkpoint.accounts.spools == {}


@pytest.mark.rule("A8")
@pytest.mark.parametrize(
    ("offset", "log", "expected"),
    [
        (0, LogView(0, None), False),
        (0, LogView(9, None), False),
        (5, LogView(4, None), True),
        (5, LogView(5, (4, T0_MS)), False),
        (5, LogView(9, (4, T0_MS + 1)), True),
        (5, LogView(9, (4, T0_MS - 1)), True),
        (5, LogView(5, None), False),
        (5, LogView(9, (7, T0_MS + 1)), False),
        (5, LogView(9, (7, T0_MS - 1)), True),
    ],
)
def test_another_log_is_told(offset: int, log: LogView, *, expected: bool) -> None:
    """Ending before the checkpoint, or another time at its place, says that the topic was created anew; retention that
    took the place says nothing.
    """
    assert is_another_log(Checkpoint(0, 1, offset, T0_MS), log) is expected


@pytest.mark.rule("A8")
def test_a_new_epoch_keeps_the_sequences() -> None:
    """The log begins anew, but gateways go on in the spools they have."""
    old = Checkpoint(3, 1, 99, T0_MS, Accounts({SPOOL + "1": Spool(9, 9)}))

    assert next_epoch(old) == Checkpoint(3, 2, 0, 0, old.accounts)


@pytest.mark.rule("A7")
def test_questions_are_told_what_the_table_does_not_hold() -> None:
    """A row that is as in the table is read there; one that is ahead of it is told, also while it is written."""
    book = held(0)
    fold(book, arrival(0, click(user="u")))
    hour = T0_MS // HOUR_MS
    day = hour // DAY_HOURS

    def told() -> tuple[int, int]:
        links = book.read(click().key, 0, range(hour, hour + 1))
        return len(links), len(book.read_tops(UserId("u"), 0, range(day, day + 1)))

    assert told() == (1, 1)
    begun = book.begin_round(0)
    assert begun is not None
    first = [write.image for write in book.writes(begun.rows)]
    fold(book, arrival(1, click(user="u")))
    for image in first:
        book.written(image)  # as of before the second click
    assert told() == (1, 1)
    for write in book.writes(begun.rows):
        book.written(write.image)
    assert told() == (0, 0)
