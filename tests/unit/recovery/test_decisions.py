"""R8: from where on the log is read again, and what of it is put back."""

import pytest

from contracts.link import LinkState
from link_service.domain.recovery import (
    LogState,
    Newest,
    Offsets,
    Remembered,
    first_offsets,
    forgotten_by_the_log,
    left_unsettled,
)
from tests.fakes.link_events import make_link

NOTHING = Remembered({}, {})


def log(*, begin: int = 0, end: int = 100, recent: int | None = 90, written: int | None = 100) -> LogState:
    """One partition."""
    return LogState(
        begins={0: begin},
        ends={0: end},
        recent={} if recent is None else {0: recent},
        written={} if written is None else {0: written},
    )


@pytest.mark.rule("R8", "R5")
@pytest.mark.parametrize(
    ("state", "remembered", "start"),
    [
        (log(), NOTHING, 90),
        (log(written=40), NOTHING, 40),
        (log(written=None), NOTHING, 0),
        (log(recent=None), NOTHING, 100),
        (log(), Remembered({0: 70}, {}), 70),
        (log(), Remembered({0: 95}, {}), 95),
        (log(written=93), Remembered({0: 95}, {}), 93),
        (log(), Remembered({}, {0: 60}), 60),
        (log(), Remembered({0: 95}, {0: 60}), 60),
        (log(), Remembered({1: 60}, {1: 50}), 90),
        (log(begin=50), Remembered({0: 20}, {}), 50),
        (log(begin=95), NOTHING, 95),
        (log(), Remembered({0: 101}, {}), 0),
        (log(written=101), NOTHING, 0),
        (log(end=0, recent=None, written=None), NOTHING, 0),
    ],
)
def test_from_where_on_events_are_put_back(state: LogState, remembered: Remembered, start: int) -> None:
    """R8: what came after the last note, or without one the last ten minutes; what the writer has not finished; what is
    unsettled; all of it when the log was created again, and never more than it has."""
    assert first_offsets(state, remembered) == {0: start}


@pytest.mark.parametrize(
    ("starts", "ends", "left"),
    [({0: 5, 1: 9}, {0: 7, 1: 9}, {0: 5, 1: 9}), ({0: 7, 1: 9}, {0: 7, 1: 9}, {}), ({0: 0}, {0: 0}, {})],
)
def test_all_that_was_read_is_left_unsettled(starts: Offsets, ends: Offsets, left: Offsets) -> None:
    """R8: who reads nothing stores nothing; who reads may have stored in an attempt before."""
    assert left_unsettled(starts, ends) == left


@pytest.mark.parametrize(("noted", "missing"), [({0: 50}, []), ({0: 49}, [0]), ({}, []), ({7: 3}, [])])
def test_a_redis_older_than_the_log_is_found_out(noted: Offsets, missing: list[int]) -> None:
    """R8: what the log no longer holds cannot be put back; somebody must know."""
    assert forgotten_by_the_log(log(begin=50), Remembered(noted, {})) == missing


@pytest.mark.rule("R8", "P2")
def test_the_newest_version_of_each_link_ended_ones_first() -> None:
    """R8, O2: late repeats of older events change nothing; no older version is ever put back on the way."""
    newest = Newest()
    newest.add([make_link("a"), make_link("a", version=2), make_link("b", version=3)])
    newest.add([make_link("a"), make_link("b", version=4, state=LinkState.DELETED), make_link("b", version=3)])

    assert [(link.key, link.version) for link in newest.in_order()] == [("b", 4), ("a", 2)]
