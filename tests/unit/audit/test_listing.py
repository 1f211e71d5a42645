"""Pages: tokens that come back whole or are refused, and events that are shown once."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.domain.leaf import IndexRow
from audit.domain.listing import (
    BadTokenError,
    Cursor,
    collapse,
    cursor_after,
    decode_token,
    encode_token,
    may_repeat,
    own,
    page_size_of,
)
from contracts.link import EventId, LinkKey, UserId

_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def row(version: int, offset: int, event: str = "", user_id: str = "ada") -> IndexRow:
    """A row of a link's version; copies of an event share its id."""
    return IndexRow(
        user_id=UserId(user_id), key=LinkKey("abc"), short_code="abc", version=version, at=_AT,
        event_id=EventId(event or f"event-{version}"), event_type="shortener.events.v1.LinkUpdated", partition=4,
        offset=offset, leaf_index=offset,
    )  # fmt: skip


@pytest.mark.rule("O2")
def test_events_that_were_sent_again_are_shown_once() -> None:
    """v1 v2 v3 v1 v2 reads as v1 v2 v3, also when a page ends in between."""
    rows = [row(version, offset) for offset, version in enumerate([1, 2, 3, 1, 2])]
    cursor = cursor_after("code abc", rows[:3], None)

    assert collapse(rows, None) == rows[:3]
    assert [may_repeat(later, cursor) for later in rows[3:]] == [True, True]
    assert not may_repeat(row(4, 5), cursor)
    assert not may_repeat(rows[0], None)
    assert cursor_after("code abc", rows[3:], cursor).version_max == 3


@pytest.mark.rule("O2")
def test_two_events_of_one_version_are_both_shown() -> None:
    """Another event under the same version is a conflict, not a repeat: the record hides nothing."""
    rows = [row(1, 0), row(1, 1, "other")]

    assert collapse(rows, None) == rows


def test_neighbour_on_the_page_before_is_known() -> None:
    """An account's repeats stand side by side, so the last event of a page is remembered."""
    assert collapse([row(1, 0), row(2, 1)], cursor_after("account ada", [row(1, 9)], None)) == [row(2, 1)]


def test_only_own_rows_are_left() -> None:
    """Rows of other accounts are left out."""
    mine, theirs = row(1, 0), row(2, 1, user_id="bob")

    assert own([mine, theirs], UserId("ada")) == [mine]


@given(st.integers(0, 9), st.integers(0, 1 << 60), st.integers(1, 1 << 40), st.text("abc-0123", min_size=1))
def test_token_comes_back(partition: int, offset: int, version: int, event_id: str) -> None:
    """A token is its cursor, and belongs to its list."""
    cursor = Cursor("code abc", _AT, partition, offset, version, EventId(event_id))

    assert decode_token(encode_token(cursor), "code abc") == cursor
    for subject in ("code abd", "account abc"):
        with pytest.raises(BadTokenError):
            decode_token(encode_token(cursor), subject)


@given(st.text(min_size=1, max_size=60))
def test_anything_else_is_refused(token: str) -> None:
    """Nobody's text is a token, and none does worse than being refused."""
    with pytest.raises(BadTokenError):
        decode_token(token, "code abc")


def test_naive_times_and_negative_places_are_refused() -> None:
    """A token that was tampered with does not reach the database."""
    good = Cursor("s", _AT, 1, 1, 1, EventId("e"))
    for bad in (replace(good, at=_AT.replace(tzinfo=None)), replace(good, partition=-1), replace(good, offset=-1)):
        with pytest.raises(BadTokenError):
            decode_token(encode_token(bad), "s")
    assert decode_token("", "s") is None


@pytest.mark.parametrize(("wanted", "size"), [(0, 50), (-1, 50), (1, 1), (100, 100), (1000, 100)])
def test_page_sizes(wanted: int, size: int) -> None:
    """The default is 50, the most 100."""
    assert page_size_of(wanted) == size
