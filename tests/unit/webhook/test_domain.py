"""What webhook decides, rule by rule."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.link import EventType
from contracts.reasons import Reason
from tests.fakes.link_events import START, event_of, make_link
from tests.fakes.webhook import make_delivery, make_endpoint
from webhook.domain.deliveries import (
    DELAYS_S,
    Answer,
    DeliveryState,
    after_attempt,
    due_bucket,
    is_astray,
    may_begin,
    next_attempt,
    parse_retry_after,
    recipients,
)
from webhook.domain.endpoints import (
    ENDPOINTS_MAX,
    Account,
    Draft,
    EndpointId,
    Refusal,
    add_endpoint,
    check_draft,
    check_url,
    disable_endpoint,
    remove_endpoint,
)

HOSTS = ("127.0.0.1", "localhost")
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://example.org/hook", "https://example.org/hook"),
        ("https://EXAMPLE.org:443/a b#part", "https://example.org/a%20b"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://example.org:8443/", "https://example.org:8443/"),
        ("http://127.0.0.1:9000/hook", "http://127.0.0.1:9000/hook"),
        ("http://localhost/", "http://localhost/"),
        ("https://localhost/", "https://localhost/"),
    ],
)
def test_a_url_that_may_be_told_is_kept_in_its_normal_form(url: str, normal: str) -> None:
    """https anywhere public, http on the hosts of the deployment; the fragment goes."""
    assert check_url(url, http_hosts=HOSTS) == normal


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "/hook", "example.org", "ftp://example.org/", "http://example.org/", "javascript:alert(1)",
        "https://user:word@example.org/", "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data",
        "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://printer.local/", "https://intranet/",
        "https://0x0a000001/", "https://example.org/" + "x" * 2048, "https://example.org/" + "ü" * 700,
    ],
)  # fmt: skip
def test_a_url_that_may_not_be_told_is_refused(url: str) -> None:
    """Plain http, private targets in any spelling, credentials, what is no URL, what is too long."""
    verdict = check_url(url, http_hosts=HOSTS)

    assert isinstance(verdict, Refusal)
    assert (verdict.reason, verdict.field) == (Reason.INVALID_WEBHOOK_URL, "url")


def test_a_local_host_is_refused_where_the_deployment_does_not_allow_it() -> None:
    """In production there are no hosts that may be told over http or on private addresses."""
    for url in ("http://127.0.0.1/", "https://127.0.0.1/", "https://localhost/"):
        assert isinstance(check_url(url, http_hosts=()), Refusal)


def test_a_draft_needs_the_plan_a_url_and_known_event_types() -> None:
    """The plan is looked at first; no types asked for is all of them; types are kept once."""
    url = "https://example.org/"

    free = check_draft("nonsense", [], is_premium=False, http_hosts=())
    assert isinstance(free, Refusal)
    assert free.reason is Reason.PLAN_REQUIRED
    assert check_draft(url, [], is_premium=True, http_hosts=()) == Draft(url, ("*",))
    twice = ["link.deleted", "link.created", "link.deleted"]
    assert check_draft(url, twice, is_premium=True, http_hosts=()) == Draft(url, ("link.deleted", "link.created"))
    unknown = check_draft(url, ["link.clicked"], is_premium=True, http_hosts=())
    assert isinstance(unknown, Refusal)
    assert (unknown.reason, unknown.field) == (Reason.INVALID_FIELD, "event_types")


def test_an_account_has_at_most_twenty_endpoints() -> None:
    """The twentieth is added, the next is refused; a removed one makes room; an unknown one cannot be removed."""
    account = Account(make_endpoint().user_id)
    for number in range(ENDPOINTS_MAX):
        added = add_endpoint(account, make_endpoint(str(number)))
        assert isinstance(added, Account)
        account = added

    full = add_endpoint(account, make_endpoint("more"))
    assert isinstance(full, Refusal)
    assert full.reason is Reason.ENDPOINT_LIMIT
    removed = remove_endpoint(account, "7")
    assert isinstance(removed, Account)
    assert removed.find("7") is None
    assert isinstance(add_endpoint(removed, make_endpoint("more")), Account)
    absent = remove_endpoint(account, "more")
    assert isinstance(absent, Refusal)
    assert absent.reason is Reason.ENDPOINT_NOT_FOUND


def test_disabling_says_why_and_happens_once() -> None:
    """An endpoint that answered 410 keeps its place and its reason; there is nothing to change the second time."""
    account = Account(make_endpoint().user_id, (make_endpoint("a"), make_endpoint("b")))

    disabled = disable_endpoint(account, "a", "It answered 410 Gone.")
    assert disabled is not None
    assert [(item.endpoint_id, item.enabled) for item in disabled.endpoints] == [("a", False), ("b", True)]
    assert disabled.endpoints[0].disabled_reason == "It answered 410 Gone."
    assert disable_endpoint(disabled, "a", "again") is None
    assert disable_endpoint(disabled, "c", "unknown") is None


@pytest.mark.parametrize(
    ("wanted", "kind", "told"),
    [
        (("*",), EventType.CREATED, True),
        (("*",), EventType.RESTORED, True),
        (("link.created",), EventType.CREATED, True),
        (("link.created",), EventType.DELETED, False),
        (("link.created", "link.deleted"), EventType.DELETED, True),
    ],
)
def test_an_endpoint_is_told_of_the_types_it_asked_for(wanted: tuple[str, ...], kind: EventType, told: bool) -> None:
    """Exact names, or * for all."""
    event = event_of(make_link("abc"), kind)

    found = recipients(event, [make_endpoint(event_types=wanted)], recorded_at=event.at, now=event.at)

    assert bool(found) is told


@pytest.mark.rule("H1")
def test_endpoints_made_after_the_record_and_disabled_ones_are_not_told() -> None:
    """The broker's time of the record decides, to the millisecond."""
    event = event_of(make_link("abc"))
    recorded_at = START + timedelta(minutes=1)
    just = make_endpoint("just", created_at=recorded_at)
    late = make_endpoint("late", created_at=recorded_at + timedelta(milliseconds=1))
    disabled = replace(make_endpoint("disabled"), enabled=False)

    assert recipients(event, [just, late, disabled], recorded_at=recorded_at, now=recorded_at) == [just]


@pytest.mark.rule("H1")
def test_events_older_than_31_days_are_told_to_nobody() -> None:
    """By the event's own time: a replay has a new record, but its rows may be gone."""
    event = event_of(make_link("abc"))
    endpoints = [make_endpoint(created_at=START - timedelta(days=365))]

    for days, told in ((31, True), (31 + 1 / 86400, False)):
        now = event.at + timedelta(days=days)
        assert bool(recipients(event, endpoints, recorded_at=now, now=now)) is told
        assert bool(recipients(event, endpoints, recorded_at=event.at, now=now)) is told


@pytest.mark.rule("H2")
def test_the_schedule_is_that_of_the_standard() -> None:
    """0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, each spread by 20 % to either side, then never."""
    assert DELAYS_S == (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    for attempts, delay_s in enumerate(DELAYS_S):
        for chance, factor in ((0.0, 0.8), (0.5, 1.0), (0.999, 1.1996)):
            at = next_attempt(attempts, now=START, retry_after_s=None, chance=lambda value=chance: value)  # type: ignore[misc]  # mypy cannot type a default of a lambda
            assert at is not None
            assert (at - START).total_seconds() == pytest.approx(delay_s * factor)
    assert next_attempt(len(DELAYS_S), now=START, retry_after_s=1, chance=lambda: 0.5) is None


@pytest.mark.parametrize(
    ("answer", "state", "wait_s", "error"),
    [
        (Answer(200), DeliveryState.DELIVERED, None, ""),
        (Answer(204), DeliveryState.DELIVERED, None, ""),
        (Answer(299), DeliveryState.DELIVERED, None, ""),
        (Answer(301), DeliveryState.PENDING, 5, "The receiver answered 301."),
        (Answer(400), DeliveryState.PENDING, 5, "The receiver answered 400."),
        (Answer(410), DeliveryState.FAILED, None, "The receiver answered 410."),
        (Answer(500), DeliveryState.PENDING, 5, "The receiver answered 500."),
        (Answer(500, retry_after="60"), DeliveryState.PENDING, 5, "The receiver answered 500."),
        (Answer(429, retry_after="60"), DeliveryState.PENDING, 60, "The receiver answered 429."),
        (Answer(503, retry_after="60"), DeliveryState.PENDING, 60, "The receiver answered 503."),
        (Answer(503, retry_after="1"), DeliveryState.PENDING, 5, "The receiver answered 503."),
        (Answer(503, retry_after="99999999999999"), DeliveryState.PENDING, 86400, "The receiver answered 503."),
        (Answer(503, retry_after="soon"), DeliveryState.PENDING, 5, "The receiver answered 503."),
        (Answer(0, "No connection could be made."), DeliveryState.PENDING, 5, "No connection could be made."),
    ],
)
@pytest.mark.rule("H2")
def test_what_follows_from_an_answer(answer: Answer, state: DeliveryState, wait_s: float | None, error: str) -> None:
    """2xx delivers, 410 ends, everything else is tried again, and a receiver may ask for more time."""
    after = after_attempt(make_delivery("e", claim="c"), answer, now=START, chance=lambda: 0.5)

    assert (after.state, after.attempts, after.last_status, after.last_error) == (state, 1, answer.status, error)
    assert after.next_at == (None if wait_s is None else START + wait_s * SECOND)
    assert after.claim == "c"


@pytest.mark.rule("H2")
def test_after_the_tenth_attempt_a_delivery_is_given_up() -> None:
    """Ten failures in a row, each but the last leaving it due again."""
    delivery = make_delivery("e")
    for attempt in range(1, 11):
        delivery = after_attempt(delivery, Answer(500), now=START, chance=lambda: 0.5)
        assert delivery.attempts == attempt
        assert delivery.state is (DeliveryState.PENDING if attempt < 10 else DeliveryState.FAILED)
    assert delivery.next_at is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("0", 0), ("120", 120), (" 7 ", 7), ("-1", None), ("1.5", None), ("²", None), ("soon", None),
     ("Sun, 22 Nov 2026 12:00:30 GMT", 30), ("Sun, 22 Nov 2026 11:00:00 GMT", 0),
     (f"Sun, 22 Nov {'9' * 20} 12:00:30 GMT", None), (f"Sun, 22 Nov 2026 12:00:30 +{'9' * 20}", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    """RFC 9110 section 10.2.3; anything else says nothing."""
    assert parse_retry_after(text, now=datetime(2026, 11, 22, 12, tzinfo=UTC)) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_breaks_us(text: str) -> None:
    """A receiver may write what it likes."""
    wait_s = parse_retry_after(text, now=START)
    assert wait_s is None or wait_s >= 0


@pytest.mark.rule("P7")
def test_what_no_right_clock_would_put_off_so_far_is_astray() -> None:
    """A claim of 25 h, or a wait of over a day; not a claim under way, nor the longest wait a receiver asks for."""
    waits = make_delivery("e", next_at=START + timedelta(hours=24))
    claimed = make_delivery("e", next_at=START + timedelta(seconds=30), claim="c")
    far = timedelta(hours=25)

    assert not is_astray(waits, now=START, lease_s=30)
    assert not is_astray(claimed, now=START, lease_s=30)
    assert not is_astray(replace(waits, next_at=None), now=START, lease_s=30)
    assert not is_astray(replace(waits, attempts=9, next_at=START + timedelta(hours=28)), now=START, lease_s=30)
    assert is_astray(replace(waits, next_at=START + far), now=START, lease_s=30)
    assert is_astray(replace(claimed, next_at=START + far), now=START, lease_s=30)


@pytest.mark.rule("H2")
def test_an_attempt_begins_only_if_it_ends_within_its_lease() -> None:
    """A claim that may be taken over meanwhile is no reason to begin."""
    delivery = make_delivery("e", next_at=START + 30 * SECOND, claim="c")

    assert may_begin(delivery, now=START + 15 * SECOND, attempt_s=15)
    assert not may_begin(delivery, now=START + 15.001 * SECOND, attempt_s=15)


def test_deliveries_spread_over_all_buckets() -> None:
    """No partition of the index is hot, also for one endpoint alone."""
    endpoint = make_endpoint().endpoint_id
    assert {due_bucket(endpoint, make_delivery(str(number)).event_id) for number in range(500)} == set(range(16))
    assert due_bucket(EndpointId("a"), make_delivery("b").event_id) == due_bucket(
        EndpointId("a"), make_delivery("b").event_id
    )
