"""The accounts of spools: what is new, a repeat, a gap, buried, replayed; and that they stay small."""

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.adapters.accounts_message import accounts_from, accounts_message
from analytics.domain.clicks import HOUR_MS, Buried, Click, Clicks, Origin, Totals
from analytics.domain.ledger import SPOOLS_MAX, Accounts, Ledger, Tidings
from analytics.domain.sequences import Judgement, Spool, buried, judge, replayed, taken
from tests.fakes.analytics_clicks import SPOOL, T0_MS, click

DAY_MS = 24 * HOUR_MS
ONE = SPOOL + "1"
ITEM_BYTES_MAX = 400_000  # of DynamoDB


def clicks(first: int, last: int, spool_id: str = ONE) -> Clicks:
    """Clicks with these sequences; each one's key is its sequence."""
    return Clicks([click(str(number)) for number in range(first, last + 1)], spool_id, first)


def keys(found: "list[Click] | tuple[Click, ...] | object") -> list[int]:
    """The sequences of clicks that were made by `clicks`."""
    assert isinstance(found, list | tuple)
    return [int(one.key) for one in found]


@pytest.mark.rule("S4")
@pytest.mark.parametrize(
    ("last", "first", "count", "expected"),
    [
        (0, 1, 1, Judgement(0, 0)),
        (0, 2, 1, Judgement(0, 1)),
        (7, 8, 5, Judgement(0, 0)),
        (7, 7, 1, Judgement(1, 0)),
        (7, 1, 1, Judgement(1, 0)),
        (7, 5, 3, Judgement(3, 0)),
        (7, 6, 10, Judgement(2, 0)),
        (7, 9, 1, Judgement(0, 1)),
        (7, 20, 5, Judgement(0, 12)),
    ],
)
def test_sequences_tell_repeats_from_news(last: int, first: int, count: int, expected: Judgement) -> None:
    """Up to the last: sent again. One above: new. Beyond: a gap. A record may begin in what was counted."""
    assert judge(Spool(last, last), first, count) == expected


@pytest.mark.rule("S4")
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), max_size=40))
def test_each_sequence_counts_once_and_all_are_accounted_for(batches: list[tuple[int, int]]) -> None:
    """Whatever boundaries records have, and however they overlap: last = counted + missing, and no repeat counts."""
    spool, counted = Spool(), set[int]()
    for first, count in batches:
        repeats, _ = judge(spool, first, count)
        new = range(first + repeats, first + count)
        assert not counted.intersection(new)
        counted.update(new)
        spool = taken(spool, first, count)
        assert spool.last == max(counted)
        assert spool.counted == len(counted)
        if len(spool.missing) < 20:
            missing = {number for low, high in spool.missing for number in range(low, high + 1)}
            assert missing == set(range(1, spool.last + 1)) - counted
            assert spool.gaps == len(missing)


@pytest.mark.rule("S4", "A10")
def test_a_ledger_counts_what_is_new() -> None:
    """Resent records, with other boundaries, count their news only; what never came is missed, and told."""
    ledger, tidings = Ledger(Accounts()), Tidings()

    found = [
        keys(ledger.take(clicks(*range_of), tidings, now_ms=T0_MS)) for range_of in [(1, 3), (2, 5), (4, 4), (8, 9)]
    ]

    assert found == [[1, 2, 3], [4, 5], [], [8, 9]]
    assert tidings == Tidings(repeats=3, gaps=1, missing=2)
    assert ledger.accounts().spools == {ONE: Spool(9, 7, 3, ((6, 7),))}
    assert not ledger.accounts().spools[ONE].balanced


@pytest.mark.rule("S5")
@pytest.mark.parametrize(("age_ms", "expected"), [(7 * DAY_MS, 2), (7 * DAY_MS + 1, 0)])
def test_a_spool_of_more_than_seven_days_is_not_known(age_ms: int, expected: int) -> None:
    """Its sequences cannot be judged any more, so its clicks are not counted; nor are its books believed."""
    ledger, tidings = Ledger(Accounts()), Tidings()

    found = ledger.take(clicks(1, 2), tidings, now_ms=T0_MS + age_ms)
    ledger.note(Totals(ONE, 9, 0, closed=True), now_ms=T0_MS + age_ms)

    assert len(found) == expected
    assert tidings.stale == 2 - expected
    assert bool(ledger.accounts().spools) == bool(expected)


@pytest.mark.rule("S8", "A10")
def test_the_spools_own_books_are_kept() -> None:
    """Totals only grow, whatever order they come in; a spool is balanced when all that it recorded was counted."""
    ledger = Ledger(Accounts())
    ledger.note(Totals(ONE, 5, 1, closed=True), now_ms=T0_MS)
    ledger.note(Totals(ONE, 3, 0, closed=False), now_ms=T0_MS)
    ledger.note(Totals(SPOOL + "2", 0, 0, closed=True), now_ms=T0_MS)  # nothing ever came into it
    assert ledger.accounts().spools == {ONE: Spool(recorded=5, dropped=1, closed=True)}
    assert not ledger.accounts().spools[ONE].balanced

    ledger.take(clicks(1, 5), Tidings(), now_ms=T0_MS)

    assert ledger.accounts().spools[ONE].balanced


@pytest.mark.rule("A10")
def test_what_is_buried_is_no_gap() -> None:
    """Clicks in a dead letter have arrived: what follows them is no gap, and they are told apart from lost ones."""
    ledger, tidings = Ledger(Accounts()), Tidings()
    ledger.take(clicks(1, 2), tidings, now_ms=T0_MS)
    ledger.bury(Buried(ONE, 2, 4), now_ms=T0_MS)
    ledger.take(clicks(6, 7), tidings, now_ms=T0_MS)

    spool = ledger.accounts().spools[ONE]

    assert tidings.gaps == 0
    assert (spool.last, spool.counted, spool.buried, spool.gaps, spool.missing) == (7, 4, 3, 0, ((3, 5),))


@pytest.mark.rule("A9")
def test_a_replayed_letter_counts_what_was_missing() -> None:
    """Its sequences lie behind the last one, and count all the same, once: of the letter those that nobody counted."""
    ledger, tidings = Ledger(Accounts()), Tidings()
    ledger.take(clicks(1, 2), tidings, now_ms=T0_MS)
    ledger.bury(Buried(ONE, 2, 4), now_ms=T0_MS)
    ledger.take(clicks(6, 7), tidings, now_ms=T0_MS)

    found = ledger.replay(clicks(2, 5), Origin(1, T0_MS), tidings, now_ms=T0_MS)
    again = ledger.replay(clicks(2, 5), Origin(1, T0_MS), tidings, now_ms=T0_MS)
    copy = ledger.replay(clicks(2, 5), Origin(8, T0_MS), tidings, now_ms=T0_MS)

    assert (keys(found), keys(again), keys(copy)) == ([3, 4, 5], [], [])
    spool = ledger.accounts().spools[ONE]
    assert (spool.last, spool.counted, spool.buried, spool.missing) == (7, 7, 0, ())
    assert spool.balanced


@pytest.mark.rule("A9")
def test_a_letter_of_a_forgotten_spool_counts_once() -> None:
    """Of a spool that is forgotten, or of none, only the place of the record says that it came before."""
    ledger, tidings = Ledger(Accounts()), Tidings()
    late_ms = T0_MS + 20 * DAY_MS

    counted = [
        len(ledger.replay(clicks(3, 5), Origin(4, T0_MS), tidings, now_ms=late_ms)),
        len(ledger.replay(clicks(3, 5), Origin(4, T0_MS), tidings, now_ms=late_ms)),
        len(ledger.replay(Clicks([click("1")]), Origin(5, T0_MS), tidings, now_ms=late_ms)),
        len(ledger.replay(Clicks([click("1")]), Origin(5, T0_MS + 1), tidings, now_ms=late_ms)),  # of another log [A8]
    ]

    assert counted == [3, 0, 1, 1]
    assert ledger.accounts().loose == 5


@pytest.mark.rule("A9")
@given(st.lists(st.tuples(st.sampled_from("tbr"), st.integers(1, 30), st.integers(1, 8)), max_size=30))
def test_no_click_counts_twice_by_a_replay(steps: list[tuple[str, int, int]]) -> None:
    """Counted, buried and replayed in any order and with any boundaries: each sequence counts at most once."""
    spool, counted = Spool(), set[int]()
    for what, first, count in steps:
        if what == "t":
            new = range(first + judge(spool, first, count).repeats, first + count)
            spool = taken(spool, first, count)
        elif what == "b":
            new = range(0)
            spool = buried(spool, first, count)
        else:
            spool, places = replayed(spool, first, count)
            new_ones = [first + place for place in places]
            assert not counted.intersection(new_ones)
            counted.update(new_ones)
            continue
        assert not counted.intersection(new)
        counted.update(new)
    assert spool.counted == len(counted)


@pytest.mark.rule("S5", "A10")
def test_a_ledger_forgets_what_is_old_or_too_much() -> None:
    """Thousands of gateways' restarts fit into one item; the oldest spools beyond are forgotten, and then known to be,
    so that what comes late of them is not counted again.
    """
    ids = [str(UUID(int=UUID(ONE).int + (number << 80))) for number in range(SPOOLS_MAX + 10)]
    worst = Spool(
        10**9, 10**8, 10**7, tuple((n * 10**6, n * 10**6 + 5) for n in range(1, 21)), 10**6, 10**9, 9, closed=True
    )
    replays = frozenset(Origin(10**12 + number, T0_MS + number) for number in range(3000))
    ledger, tidings = Ledger(Accounts(dict.fromkeys(ids, worst), replays)), Tidings()

    accounts = ledger.close(now_ms=T0_MS + DAY_MS)

    assert sorted(accounts.spools) == ids[10:]
    assert len(accounts.replays) == 2000
    assert min(accounts.replays).offset == 10**12 + 1000
    assert len(accounts_message(accounts).SerializeToString()) < ITEM_BYTES_MAX
    assert ledger.take(clicks(1, 2, ids[0]), tidings, now_ms=T0_MS + DAY_MS) == ()
    assert tidings.stale == 2
    assert len(ledger.take(clicks(10**9 + 1, 10**9 + 1, ids[10]), tidings, now_ms=T0_MS + DAY_MS)) == 1


@pytest.mark.rule("S5", "A10")
def test_a_spool_that_goes_on_outlives_thousands_that_ended() -> None:
    """A gateway that runs all day is older than all that start and end meanwhile: its next clicks count, and what comes
    again of those that were forgotten does not.
    """
    ended = [str(UUID(int=UUID(ONE).int + (number << 80))) for number in range(1, SPOOLS_MAX + 3)]
    done = Spool(7, 7, recorded=7, closed=True)
    waiting = Spool(7, 6, missing=((3, 3),), recorded=7, closed=True)  # a dead letter may fill it yet
    spools = {ONE: Spool(5, 5, recorded=5), **dict.fromkeys(ended, done), ended[0]: waiting}
    ledger, tidings = Ledger(Accounts(spools)), Tidings()

    accounts = ledger.close(now_ms=T0_MS + DAY_MS)

    assert sorted(accounts.spools) == [ONE, ended[0], *ended[4:]]
    assert keys(ledger.take(clicks(6, 8), tidings, now_ms=T0_MS + DAY_MS)) == [6, 7, 8]
    assert ledger.take(clicks(1, 7, ended[1]), tidings, now_ms=T0_MS + DAY_MS) == ()
    assert tidings.stale == 7


def test_accounts_come_back_whole() -> None:
    """The message in a checkpoint says everything that the accounts do."""
    accounts = Accounts(
        {ONE: Spool(9, 4, 7, ((2, 4), (6, 7)), 2, 12, 3, closed=True), SPOOL + "2": Spool(1, 1)},
        frozenset({Origin(3, T0_MS), Origin(500, 7)}),
        forgotten_until_ms=5,
        loose=6,
    )

    assert accounts_from(accounts_message(accounts)) == accounts
    assert accounts_from(accounts_message(replace(accounts, spools={}))) != accounts
