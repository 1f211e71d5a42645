"""When a reserved code may be reserved again."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.link import UserId
from link_service.domain.reservations import Claim, Traces, is_plainly_theirs, may_take_over

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
OLDER = Claim(user_id=UserId("ada"), redis_run_id="run-1", at=AT)


def traces(
    *,
    has_event_row: bool = False,
    has_entry: bool = False,
    oldest_in_outbox: datetime | None = None,
    oldest_unwritten: datetime | None = None,
) -> Traces:
    """Nothing was left behind, unless told otherwise."""
    return Traces(
        has_event_row=has_event_row,
        has_entry=has_entry,
        oldest_in_outbox=oldest_in_outbox,
        oldest_unwritten=oldest_unwritten,
    )


@pytest.mark.rule("K2")
@pytest.mark.parametrize(
    ("user_id", "run_id", "plainly"),
    [("ada", "run-1", True), ("ada", "run-2", False), ("eve", "run-1", False), ("eve", "run-2", False)],
)
def test_only_the_owner_goes_on_at_once_and_only_in_the_same_run(user_id: str, run_id: str, *, plainly: bool) -> None:
    """K2: the same owner at once if the run id is unchanged."""
    wanted = Claim(user_id=UserId(user_id), redis_run_id=run_id, at=AT + SECOND)

    assert is_plainly_theirs(OLDER, wanted) is plainly


@pytest.mark.rule("K2", "P3")
@pytest.mark.parametrize(
    ("left", "may"),
    [
        (traces(), True),
        (traces(has_event_row=True), False),
        (traces(has_entry=True), False),
        (traces(oldest_in_outbox=AT - SECOND), False),
        (traces(oldest_in_outbox=AT + SECOND), False),  # the create may stand behind this one
        (traces(oldest_in_outbox=AT + 36 * SECOND), True),  # its lease had ended before this one came in
        (traces(oldest_unwritten=AT + 35 * SECOND), False),
        (traces(oldest_unwritten=AT + 36 * SECOND), True),
        (traces(oldest_in_outbox=AT + 36 * SECOND, oldest_unwritten=AT), False),
    ],
)
def test_others_take_over_only_when_nothing_can_be_on_its_way(left: Traces, *, may: bool) -> None:
    """K2: no entry, no event row, and nothing in outbox or topic that could be, or stand before, the older create."""
    assert may_take_over(OLDER, left) is may
