"""The judge finds what is planted: a checker that cannot fail proves nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.link import EventId, EventType, Link, LinkEvent, LinkState, UserId
from tests.chaos.history import Kind, Operation, Outcome
from tests.chaos.judge import Rows, Verdict, judge, without_forgotten

_START = datetime(2026, 1, 1, tzinfo=UTC)
_URL = "https://example.org/"
Story = tuple[list[Operation], Rows]


def done(kind: Kind, number: int, invoked: float, **fields: object) -> Operation:
    """An operation of ada on code `c` that was answered within 10 ms."""
    one = Operation(kind, "ada", 0, "c", number, invoked=invoked, returned=invoked + 0.01, outcome=Outcome.DONE)
    for name, value in fields.items():
        setattr(one, name, value)
    return one


def event(version: int, kind: EventType, mark: str, url: str, user: str = "ada") -> LinkEvent:
    """The event of a version."""
    at = _START + timedelta(seconds=version)
    state = LinkState.DELETED if kind is EventType.DELETED else LinkState.ACTIVE
    event_id = EventId(f"event-{version}-{mark}")
    link = Link(
        short_code="c", long_url=url, user_id=UserId(user), version=version, event_id=event_id, created_at=_START,
        updated_at=at, state=state, title=mark,
    )  # fmt: skip
    return LinkEvent(type=kind, event_id=event_id, version=version, at=at, user_id=UserId(user), link=link)


def story() -> Story:
    """Made, followed, changed, followed, ended, gone, restored, followed; the tables tell the same."""
    operations = [
        done(Kind.CREATE, 1, 1.0, mark="m1", url=_URL + "1", status=201, version=1),
        done(Kind.FOLLOW, 2, 2.0, status=302, told=_URL + "1"),
        done(Kind.UPDATE, 3, 3.0, mark="m2", url=_URL + "2", status=200, version=2, if_version=1),
        done(Kind.FOLLOW, 4, 4.0, status=302, told=_URL + "2"),
        done(Kind.READ, 5, 4.5, status=200, version=2, told="m2"),
        done(Kind.DELETE, 6, 5.0, status=204),
        done(Kind.FOLLOW, 7, 6.0, status=410),
        done(Kind.RESTORE, 8, 7.0, status=200, version=4),
        done(Kind.FOLLOW, 9, 8.0, status=302, told=_URL + "2"),
    ]
    events = [
        event(1, EventType.CREATED, "m1", _URL + "1"),
        event(2, EventType.UPDATED, "m2", _URL + "2"),
        event(3, EventType.DELETED, "m2", _URL + "2"),
        event(4, EventType.RESTORED, "m2", _URL + "2"),
    ]
    return operations, Rows({"c": events}, {"c": events[-1].link})


def told(operations: Sequence[Operation], rows: Rows) -> tuple[int, int, int]:
    """How much is lost, wrong, stale."""
    found = judge(operations, rows)
    return len(found.lost), len(found.wrong), len(found.stale)


def with_events(rows: Rows, change: Callable[[list[LinkEvent]], list[LinkEvent]]) -> Rows:
    """The rows after a change of the events; the projection follows its last."""
    events = change(list(rows.events["c"]))
    return Rows({"c": events}, {"c": events[-1].link if events else None})


def test_a_true_story_is_found_good() -> None:
    """Nothing is found, and every answer was looked at."""
    found = judge(*story())

    assert (found.lost, found.wrong, found.stale) == ([], [], [])
    assert (found.acknowledged, found.checked_reads, found.good) == (4, 9, True)


def test_an_acknowledged_create_that_is_nowhere_is_lost() -> None:
    """No rows at all."""
    operations, _ = story()

    assert judge(operations[:1], Rows({}, {})).lost


def test_an_acknowledged_change_that_is_nowhere_is_lost() -> None:
    """The last version is missing from the rows."""
    operations, rows = story()

    assert judge(operations, with_events(rows, lambda events: events[:3])).lost
    assert judge(operations[:4], with_events(rows, lambda events: events[:1])).lost


def test_an_acknowledged_delete_that_was_never_done_is_lost() -> None:
    """204, and the link is active to this day."""
    operations, rows = story()

    assert judge(operations[:6], with_events(rows, lambda events: events[:2])).lost


def test_a_projection_that_is_missing_or_behind_is_found() -> None:
    """Lost, if there is none; wrong, if it is older than the last event."""
    operations, rows = story()

    assert judge(operations, Rows(rows.events, {"c": None})).lost
    assert judge(operations, Rows(rows.events, {"c": rows.events["c"][1].link})).wrong


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda events: [events[0], *events[2:]], id="a gap"),
        pytest.param(lambda events: [events[0], events[0], *events[1:]], id="a version twice"),
        pytest.param(lambda events: events[1:], id="no first version"),
        pytest.param(
            lambda events: [*events, replace(events[1], version=5, event_id=EventId("other"))], id="an operation twice"
        ),
        pytest.param(
            lambda events: [*events, event(5, EventType.UPDATED, "nobody", _URL + "9")], id="what nobody asked for"
        ),
        pytest.param(lambda events: [*events, event(5, EventType.DELETED, "m2", _URL + "2")], id="one delete too many"),
        pytest.param(
            lambda events: [event(1, EventType.CREATED, "m1", _URL + "1", user="bob"), *events[1:]], id="another owner"
        ),
        pytest.param(
            lambda events: [events[0], event(2, EventType.UPDATED, "m2", _URL + "9"), *events[2:]], id="another URL"
        ),
        pytest.param(lambda events: [replace(events[0], at=_START + timedelta(days=2)), *events[1:]], id="times"),
    ],
)
def test_rows_that_are_not_as_they_must_be_are_wrong(change: Callable[[list[LinkEvent]], list[LinkEvent]]) -> None:
    """Each on its own is found."""
    operations, rows = story()

    assert judge(operations, with_events(rows, change)).wrong


def test_a_link_of_the_other_account_is_wrong() -> None:
    """All rows agree on an owner who never asked for it."""
    operations, rows = story()
    theirs = with_events(rows, lambda events: [
        event(one.version, one.type, one.link.title, one.link.long_url, user="bob") for one in events
    ])  # fmt: skip

    assert any("of ada, but bob has it" in sentence for sentence in judge(operations, theirs).wrong)


def test_what_was_refused_and_stands_there_is_wrong() -> None:
    """503 "nothing was done", and it was."""
    operations, rows = story()
    operations[2].outcome, operations[2].status = Outcome.REFUSED, 503

    assert any("refused" in sentence for sentence in judge(operations, rows).wrong)


def test_what_is_unknown_may_stand_there_or_not() -> None:
    """A time-out: both stories are good."""
    operations, rows = story()
    operations[7].outcome, operations[7].returned, operations[7].version = Outcome.UNKNOWN, None, 0

    assert told(operations, rows) == (0, 0, 0)
    assert told(operations[:8], with_events(rows, lambda events: events[:3])) == (0, 0, 0)


def test_an_order_that_the_world_saw_otherwise_is_wrong() -> None:
    """The second change was acknowledged before the first was asked for, but has the higher version."""
    operations, rows = story()
    late = done(Kind.UPDATE, 10, 9.0, mark="m3", url=_URL + "3", status=200, version=5)
    early = done(Kind.UPDATE, 11, 7.5, mark="m4", url=_URL + "4", status=200, version=6)
    longer = with_events(rows, lambda events: [
        *events, event(5, EventType.UPDATED, "m3", _URL + "3"), event(6, EventType.UPDATED, "m4", _URL + "4"),
    ])  # fmt: skip

    assert any("stands behind" in sentence for sentence in judge([*operations[:8], late, early], longer).wrong)


def test_a_change_that_ignored_if_match_is_wrong() -> None:
    """It was to follow version 7."""
    operations, rows = story()
    operations[2].if_version = 7

    assert judge(operations, rows).wrong


def test_a_redirect_after_the_delete_is_stale() -> None:
    """It began 1 ms after the 204."""
    operations, rows = story()
    operations[6] = done(Kind.FOLLOW, 7, 5.011, status=302, told=_URL + "2")

    assert told(operations, rows) == (0, 0, 1)


def test_a_redirect_to_where_it_led_before_is_stale() -> None:
    """The change was acknowledged."""
    operations, rows = story()
    operations[3].told = _URL + "1"

    assert told(operations, rows) == (0, 0, 1)


def test_another_gateway_may_be_100_ms_behind_and_no_more() -> None:
    """P2's bound; the gateway that answered the delete has none."""
    operations, rows = story()
    within = done(Kind.FOLLOW, 7, 5.05, status=302, told=_URL + "2", gateway=1)
    beyond = done(Kind.FOLLOW, 7, 5.2, status=302, told=_URL + "2", gateway=1)

    assert told([*operations[:6], within, *operations[7:]], rows) == (0, 0, 0)
    assert told([*operations[:6], beyond, *operations[7:]], rows) == (0, 0, 1)


def test_a_redirect_that_began_before_the_answer_may_see_either() -> None:
    """It was under way while the link was ended."""
    operations, rows = story()
    operations[6] = done(Kind.FOLLOW, 7, 5.005, status=302, told=_URL + "2")

    assert told(operations, rows) == (0, 0, 0)


def test_an_answer_that_went_back_is_stale() -> None:
    """One was told of the restored link before anybody else was told that it was still gone."""
    operations, rows = story()
    operations[7].outcome, operations[7].returned, operations[7].version = Outcome.UNKNOWN, None, 0
    back = done(Kind.READ, 10, 9.0, status=200, version=3, told="m2")

    assert told([*operations, back], rows) == (0, 0, 1)


def test_a_redirect_before_it_was_asked_for_is_found() -> None:
    """Where it leads was only set later."""
    operations, rows = story()
    operations[1].told = _URL + "2"

    assert judge(operations, rows).wrong


def test_a_link_that_is_not_found_is_lost() -> None:
    """404 for an acknowledged link; 410 for one that nobody ended."""
    operations, rows = story()
    for status in (404, 410):
        gone = done(Kind.FOLLOW, 4, 4.0, status=status)
        assert told([*operations[:3], gone, *operations[4:]], rows) == (1, 0, 0)


def test_a_redirect_to_a_place_that_nobody_named_is_wrong() -> None:
    """As is an answer that no link ever gives."""
    operations, rows = story()
    for fields in ({"told": _URL + "evil"}, {"status": 451}):
        follow = replace(operations[3], **fields)
        assert told([*operations[:3], follow, *operations[4:]], rows) == (0, 1, 0)


def test_a_stranger_who_is_shown_a_link_is_wrong() -> None:
    """404 is what they are to be told."""
    operations, rows = story()
    shown = done(Kind.READ, 10, 4.5, user="bob", status=200, version=2, told="m2")

    assert told([*operations, replace(shown, status=404)], rows) == (0, 0, 0)
    assert told([*operations, shown], rows) == (0, 1, 0)


def test_an_exception_that_is_stated_is_told_apart() -> None:
    """Stale, but covered: in its own list, and still good."""
    operations, rows = story()
    operations[6] = done(Kind.FOLLOW, 7, 5.5, status=302, told=_URL + "2")

    found: Verdict = judge(operations, rows, excused=lambda one: one.number == 7)

    assert (len(found.excused), found.good) == (1, True)


def test_what_the_client_itself_complains_of_is_wrong() -> None:
    """A repeat under its key with another answer."""
    operations, rows = story()
    operations[0].complaint = "answered otherwise"

    assert told(operations, rows) == (0, 1, 0)


def test_what_a_lost_redis_may_have_forgotten_is_left_out_and_nothing_else() -> None:
    """The delete was under way in the window, so this link is not judged; with another window it is."""
    operations, rows = story()
    missing = with_events(rows, lambda events: events[:2])

    assert judge(*without_forgotten(operations[:6], missing, [(4.0, 5.005)])).good
    assert not judge(*without_forgotten(operations[:6], missing, [(5.1, 6.0)])).good


def test_a_create_whose_code_was_never_told_is_judged_although_another_was_left_out() -> None:
    """Both have no code in the history; only the one in the window is left out."""
    operations, rows = story()
    operations[0].outcome, operations[0].returned, operations[0].code = Outcome.UNKNOWN, None, ""
    operations[0].version = 0
    other = done(Kind.CREATE, 20, 120.0, mark="m9", code="", outcome=Outcome.REFUSED, status=503)

    found = judge(
        *without_forgotten([operations[0], other], with_events(rows, lambda events: events[:1]), [(119, 121)])
    )

    assert found.wrong == []
