"""What a new link must be, and what a delete decides."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.link import EventId, EventType, FieldChange, Link, LinkEvent, LinkState, UserId
from contracts.reasons import Reason
from link_service.domain import links
from link_service.domain.destinations import policy_for
from link_service.domain.links import Already, NotTheirs, Stale, Terms, Violations, Who, Wish

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = policy_for("https://go.example.com", allow_private=False)
ADA = Who(UserId("ada"), EventId("01900000-0000-7000-8000-000000000001"), "t" * 32)
AGAIN = Who(UserId("ada"), EventId("01900000-0000-7000-8000-000000000002"))
EVE = Who(UserId("eve"), EventId("01900000-0000-7000-8000-000000000003"))
URL = "https://example.org"


def made(wish: Wish | None = None, code: str = "abc-1", *, now: datetime = NOW) -> Link:
    """A link that was made."""
    terms = links.check(wish or Wish(long_url=URL), now=now, policy=POLICY)
    assert isinstance(terms, Terms)
    return links.create(terms, code, who=ADA, now=now).link


@pytest.mark.parametrize(
    ("wish", "reason", "fields"),
    [
        (Wish(long_url="ftp://x.org"), Reason.INVALID_LONG_URL, ["long_url"]),
        (Wish(long_url=URL, custom_code="ab"), Reason.INVALID_CUSTOM_CODE, ["custom_code"]),
        (Wish(long_url=URL, custom_code="abcDEF7"), Reason.INVALID_CUSTOM_CODE, ["custom_code"]),
        (Wish(long_url=URL, custom_code="Admin"), Reason.INVALID_CUSTOM_CODE, ["custom_code"]),
        (Wish(long_url=URL, custom_code="naïve-code"), Reason.INVALID_CUSTOM_CODE, ["custom_code"]),
        (Wish(long_url=URL, custom_code="a" * 65), Reason.INVALID_CUSTOM_CODE, ["custom_code"]),
        (Wish(long_url="x", custom_code="a"), Reason.INVALID_LONG_URL, ["long_url", "custom_code"]),
        (Wish(long_url=URL, expires_at=NOW), Reason.INVALID_FIELD, ["expires_at"]),
        (Wish(long_url=URL, expires_at=NOW + HOUR, starts_at=NOW + HOUR), Reason.INVALID_FIELD, ["expires_at"]),
        (Wish(long_url=URL, expires_at=NOW + 40_000 * 24 * HOUR), Reason.INVALID_FIELD, ["expires_at"]),
        (Wish(long_url=URL, starts_at=NOW + 40_000 * 24 * HOUR), Reason.INVALID_FIELD, ["starts_at"]),
        (Wish(long_url=URL, redirect_status=303), Reason.INVALID_FIELD, ["redirect_status"]),
        (Wish(long_url=URL, title="t" * 201), Reason.INVALID_FIELD, ["title"]),
        (Wish(long_url=URL, tags=tuple(f"t{n}" for n in range(17))), Reason.INVALID_FIELD, ["tags"]),
        (Wish(long_url=URL, tags=("t" * 65,)), Reason.INVALID_FIELD, ["tags"]),
        (Wish(long_url=URL, tags=(" ",)), Reason.INVALID_FIELD, ["tags"]),
    ],
)
def test_a_wish_outside_the_limits_is_told_all_that_is_wrong(wish: Wish, reason: Reason, fields: list[str]) -> None:
    """Limits: every field that is wrong is named, and the reason is the gravest one's."""
    verdict = links.check(wish, now=NOW, policy=POLICY)

    assert isinstance(verdict, Violations)
    assert (verdict.reason, [item.field for item in verdict.items]) == (reason, fields)


def test_a_wish_at_the_limits_becomes_a_link() -> None:
    """Limits: the limits themselves are allowed; a repeated tag is one tag; the status is 302 unless asked for."""
    tags = tuple(f"{n:064}" for n in range(16))
    wish = Wish(long_url=URL, custom_code="a-b", expires_at=NOW + HOUR, starts_at=NOW, title="t" * 200, tags=tags * 2)

    link = made(wish, "a-b")

    assert link == Link(
        short_code="a-b",
        long_url="https://example.org/",
        user_id=UserId("ada"),
        version=1,
        event_id=ADA.event_id,
        created_at=NOW,
        updated_at=NOW,
        is_custom=True,
        expires_at=NOW + HOUR,
        starts_at=NOW,
        redirect_status=302,
        title="t" * 200,
        tags=tags,
    )


def test_a_creation_is_an_event_with_the_whole_link() -> None:
    """An event tells who, when, in which trace, and the full resulting link."""
    terms = links.check(Wish(long_url=URL, redirect_status=308), now=NOW, policy=POLICY)
    assert isinstance(terms, Terms)

    event = links.create(terms, "abc-1", who=ADA, now=NOW)

    assert (event.type, event.event_id, event.version, event.at) == (EventType.CREATED, ADA.event_id, 1, NOW)
    assert (event.user_id, event.trace_id) == ("ada", "t" * 32)
    assert (event.link.redirect_status, event.link.is_custom) == (308, False)


@pytest.mark.rule("W3")
@pytest.mark.parametrize("shift", [HOUR, timedelta(0), -HOUR], ids=["clock on", "clock stands", "clock went back"])
def test_a_tombstone_is_younger_than_what_it_ends(shift: timedelta) -> None:
    """W3: the time of an event is later than its predecessor's, whatever the clock says."""
    link = made()

    event = links.delete(link, who=AGAIN, if_version=0, now=NOW + shift)

    assert isinstance(event, LinkEvent)
    assert event.at == max(NOW + shift, NOW + timedelta(milliseconds=1))
    assert event.at == event.link.updated_at == event.link.deleted_at


def test_a_deletion_keeps_the_link_and_says_what_changed() -> None:
    """A tombstone is the next version of the same link; the event names the changed fields as JSON."""
    event = links.delete(made(), who=AGAIN, if_version=1, now=NOW + HOUR)

    assert isinstance(event, LinkEvent)
    assert (event.type, event.version, event.link.state) == (EventType.DELETED, 2, LinkState.DELETED)
    assert (event.link.long_url, event.link.created_at) == ("https://example.org/", NOW)
    assert event.changes == (
        FieldChange("state", '"active"', '"deleted"'),
        FieldChange("deleted_at", "", '"2026-05-01T13:00:00Z"'),
    )


def test_who_may_delete_what() -> None:
    """A stranger learns nothing; a second delete is answered as the first; a stale version is refused."""
    link = made()
    event = links.delete(link, who=AGAIN, if_version=0, now=NOW)
    assert isinstance(event, LinkEvent)
    tombstone = event.link

    assert links.delete(link, who=EVE, if_version=0, now=NOW) == NotTheirs()
    assert links.delete(tombstone, who=EVE, if_version=0, now=NOW) == NotTheirs()
    assert links.delete(link, who=AGAIN, if_version=2, now=NOW) == Stale(1)
    assert links.delete(tombstone, who=AGAIN, if_version=1, now=NOW) == Already(tombstone)


def test_an_owner_sees_an_expired_link_as_such() -> None:
    """EXPIRED is derived when read; another account sees nothing."""
    link = made(Wish(long_url=URL, expires_at=NOW + HOUR))

    before = links.view(link, user_id=UserId("ada"), now=NOW)
    after = links.view(link, user_id=UserId("ada"), now=NOW + HOUR)

    assert isinstance(before, Link)
    assert isinstance(after, Link)
    assert (before.state, after.state) == (LinkState.ACTIVE, LinkState.EXPIRED)
    assert links.view(link, user_id=UserId("eve"), now=NOW) == NotTheirs()
