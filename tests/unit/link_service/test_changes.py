"""What updates and restores decide."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.link import EventId, EventType, FieldChange, Link, LinkEvent, LinkState, UserId
from contracts.reasons import Reason
from link_service.domain import changes, links
from link_service.domain.changes import Gone, Refusal, Revision
from link_service.domain.destinations import policy_for
from link_service.domain.links import Already, NotTheirs, Stale, Violations, Who

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = policy_for("https://go.example.com", allow_private=False)
ADA = Who(UserId("ada"), EventId("01900000-0000-7000-8000-000000000001"), "t" * 32)
EVE = Who(UserId("eve"), EventId("01900000-0000-7000-8000-000000000002"))
LINK = Link(
    short_code="abc-1",
    long_url="https://example.org/",
    user_id=UserId("ada"),
    version=3,
    event_id=EventId("01900000-0000-7000-8000-000000000000"),
    created_at=NOW - HOUR,
    updated_at=NOW,
    title="Old",
    tags=("a",),
)
TOMBSTONE = replace(LINK, state=LinkState.DELETED, deleted_at=NOW)


def update(
    current: Link = LINK, *, who: Who = ADA, if_version: int = 0, now: datetime = NOW, **fields: Any
) -> LinkEvent | Refusal:
    """An update of exactly these fields."""
    revision = Revision(fields=frozenset(fields), **fields)
    return changes.update(current, revision, who=who, if_version=if_version, now=now, policy=POLICY)


def test_an_update_is_the_next_version_and_tells_each_field_that_changed() -> None:
    """An event carries the full resulting link, and old and new values as JSON text; what stays is not named."""
    wanted: dict[str, Any] = {
        "long_url": "HTTPS://Example.net/ä",
        "title": "Old",
        "tags": ("b", "a", "b"),
        "expires_at": NOW + HOUR,
        "redirect_status": 301,
    }

    event = update(now=NOW + HOUR / 2, if_version=3, **wanted)

    assert isinstance(event, LinkEvent)
    assert (event.type, event.version, event.event_id) == (EventType.UPDATED, 4, ADA.event_id)
    assert (event.at, event.user_id, event.trace_id) == (NOW + HOUR / 2, "ada", "t" * 32)
    assert event.link == replace(
        LINK,
        version=4,
        event_id=ADA.event_id,
        updated_at=NOW + HOUR / 2,
        long_url="https://example.net/%C3%A4",
        tags=("b", "a"),
        expires_at=NOW + HOUR,
        redirect_status=301,
    )
    assert event.changes == (
        FieldChange("long_url", '"https://example.org/"', '"https://example.net/%C3%A4"'),
        FieldChange("tags", '["a"]', '["b", "a"]'),
        FieldChange("expires_at", "", '"2026-05-01T13:00:00.000000Z"'),
        FieldChange("redirect_status", "302", "301"),
    )


@pytest.mark.parametrize(
    ("current", "fields"),
    [
        (LINK, {}),
        (LINK, {"title": "Old"}),
        (LINK, {"tags": ("a", "a")}),
        (LINK, {"long_url": "https://EXAMPLE.org"}),
        (LINK, {"redirect_status": 0}),
        (LINK, {"expires_at": None, "starts_at": None}),
        (replace(LINK, expires_at=NOW - HOUR), {"expires_at": NOW - HOUR}),
    ],
)
def test_an_update_that_changes_nothing_makes_no_event(current: Link, fields: dict[str, Any]) -> None:
    """No version without a change, also where the same is written in another way, or would be refused if new."""
    assert update(current, **fields) == Already(current)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": ""}, "title"),
        ({"tags": ()}, "tags"),
        ({"expires_at": None}, "expires_at"),
        ({"starts_at": None}, "starts_at"),
        ({"redirect_status": 0}, "redirect_status"),
    ],
)
def test_what_is_emptied_is_as_if_it_had_never_been_set(fields: dict[str, Any], field: str) -> None:
    """Emptied fields become those of a link that was made without them."""
    current = replace(LINK, expires_at=NOW + HOUR, starts_at=NOW, redirect_status=308)

    event = update(current, **fields)

    assert isinstance(event, LinkEvent)
    bare = Link(**{name: getattr(LINK, name) for name in ("short_code", "long_url", "user_id", "version", "event_id",
                                                          "created_at", "updated_at")})  # fmt: skip
    assert getattr(event.link, field) == getattr(bare, field)
    assert [change.field for change in event.changes] == [field]


@pytest.mark.parametrize(
    ("current", "fields", "reason", "told"),
    [
        (LINK, {"long_url": "ftp://x.org", "title": "t" * 201}, Reason.INVALID_LONG_URL, ["long_url"]),
        (LINK, {"long_url": "https://go.example.com/x"}, Reason.INVALID_LONG_URL, ["long_url"]),
        (LINK, {"expires_at": NOW}, Reason.INVALID_FIELD, ["expires_at"]),
        (LINK, {"expires_at": NOW + 40_000 * 24 * HOUR}, Reason.INVALID_FIELD, ["expires_at"]),
        (LINK, {"expires_at": NOW + HOUR, "starts_at": NOW + HOUR}, Reason.INVALID_FIELD, ["expires_at"]),
        (replace(LINK, expires_at=NOW + HOUR), {"starts_at": NOW + HOUR}, Reason.INVALID_FIELD, ["starts_at"]),
        (replace(LINK, starts_at=NOW + HOUR), {"expires_at": NOW + HOUR}, Reason.INVALID_FIELD, ["expires_at"]),
        (replace(LINK, expires_at=NOW - HOUR), {"starts_at": NOW}, Reason.INVALID_FIELD, ["starts_at"]),
        (LINK, {"redirect_status": 303, "title": "t" * 201}, Reason.INVALID_FIELD, ["redirect_status", "title"]),
        (LINK, {"tags": tuple(f"t{n}" for n in range(17))}, Reason.INVALID_FIELD, ["tags"]),
        (LINK, {"tags": (" ",)}, Reason.INVALID_FIELD, ["tags"]),
    ],
)
def test_what_changes_is_held_to_the_limits_of_a_new_link(
    current: Link, fields: dict[str, Any], reason: Reason, told: list[str]
) -> None:
    """Every field that is wrong is named; two that do not fit are told of the one that changes."""
    verdict = update(current, **fields)

    assert isinstance(verdict, Violations)
    assert (verdict.reason, [item.field for item in verdict.items]) == (reason, told)


def test_what_does_not_change_is_not_judged_again() -> None:
    """An expired link, to a place that would be refused today, may still get another title, or a later end."""
    expired = replace(LINK, long_url="http://127.0.0.1/", expires_at=NOW - HOUR)

    titled, prolonged = update(expired, title="New"), update(expired, expires_at=NOW + HOUR)

    assert isinstance(titled, LinkEvent)
    assert titled.link.state_at(NOW) is LinkState.EXPIRED
    assert isinstance(prolonged, LinkEvent)
    assert prolonged.link.state_at(NOW) is LinkState.ACTIVE


@pytest.mark.rule("P3")
def test_who_may_change_what() -> None:
    """A stranger learns nothing; a deleted link is changed by a restore only; a stale version is refused."""
    assert update(who=EVE, title="x") == NotTheirs()
    assert update(TOMBSTONE, who=EVE, title="x") == NotTheirs()
    assert update(TOMBSTONE, title="x", if_version=3) == Gone()
    assert update(title="x", if_version=2) == Stale(3)
    assert update(title="Old", if_version=2) == Stale(3)
    assert changes.restore(TOMBSTONE, who=EVE, if_version=0, now=NOW) == NotTheirs()
    assert changes.restore(LINK, who=EVE, if_version=0, now=NOW) == NotTheirs()
    assert changes.restore(TOMBSTONE, who=ADA, if_version=2, now=NOW) == Stale(3)
    assert changes.restore(LINK, who=ADA, if_version=2, now=NOW) == Already(LINK)


def test_a_restore_brings_the_same_link_back() -> None:
    """A restore is the next version, equal to the one before the delete in all that an owner had set."""
    deleted = links.delete(LINK, who=ADA, if_version=0, now=NOW + HOUR)
    assert isinstance(deleted, LinkEvent)

    event = changes.restore(deleted.link, who=ADA, if_version=4, now=NOW + 2 * HOUR)

    assert isinstance(event, LinkEvent)
    assert (event.type, event.version) == (EventType.RESTORED, 5)
    assert event.link == replace(LINK, version=5, event_id=ADA.event_id, updated_at=NOW + 2 * HOUR)
    assert event.changes == (
        FieldChange("state", '"deleted"', '"active"'),
        FieldChange("deleted_at", '"2026-05-01T13:00:00.000000Z"', ""),
    )


def test_a_delete_and_a_restore_do_not_lift_a_block() -> None:
    """What was taken down is taken down again when its owner brings it back; and no trace of the way stays."""
    blocked = replace(LINK, state=LinkState.BLOCKED)
    deleted = links.delete(blocked, who=ADA, if_version=0, now=NOW + HOUR)
    assert isinstance(deleted, LinkEvent)
    assert deleted.link.state is LinkState.DELETED

    event = changes.restore(deleted.link, who=ADA, if_version=0, now=NOW + 2 * HOUR)

    assert isinstance(event, LinkEvent)
    assert event.link == replace(blocked, version=5, event_id=ADA.event_id, updated_at=NOW + 2 * HOUR)
    assert event.changes[0] == FieldChange("state", '"deleted"', '"blocked"')


@pytest.mark.rule("W3")
@pytest.mark.parametrize("shift", [HOUR, timedelta(0), -HOUR], ids=["clock on", "clock stands", "clock went back"])
def test_every_version_is_younger_than_the_one_before(shift: timedelta) -> None:
    """W3: max(now, previous + 1 ms), for updates and restores."""
    now = NOW + shift

    for event in (update(now=now, title="New"), changes.restore(TOMBSTONE, who=ADA, if_version=0, now=now)):
        assert isinstance(event, LinkEvent)
        assert event.at == event.link.updated_at == max(now, NOW + timedelta(milliseconds=1))
