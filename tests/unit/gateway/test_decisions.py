"""What the gateway decides by itself: the answer to a code, who visits, preconditions, ranges of time."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from contracts.codes import RESERVED
from contracts.link import LinkState
from contracts.reasons import Reason
from gateway.domain.redirects import Outcome, Redirect, Refusal, code_of_path, decide, ready_answer
from gateway.domain.requests import STALE, Stale, TimeRange, etag, expected_version, stats_range
from gateway.domain.visitors import (
    Visit,
    VisitorClass,
    classify,
    client_address,
    country_of,
    cut,
    daily_key,
    visitor_hash,
)
from tests.fakes.gateway_peers import AT, make_link

HOUR = timedelta(hours=1)
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_active_link_redirects_with_its_own_status(status: int) -> None:
    """An active link answers its redirect status and destination, kept by nobody in between."""
    verdict = decide(make_link(redirect_status=status), AT)

    assert isinstance(verdict, Redirect)
    headers = dict(verdict.headers)
    assert verdict.status == status
    assert headers[b"location"] == b"https://example.com/there"
    assert headers[b"cache-control"] == b"private, no-store"
    assert headers[b"x-robots-tag"] == b"noindex"
    assert headers[b"content-length"] == b"0"


@pytest.mark.rule("P2")
@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"state": LinkState.DELETED, "deleted_at": AT}, Outcome.DELETED, Reason.LINK_DELETED),
        ({"state": LinkState.DELETED, "starts_at": AT + HOUR}, Outcome.DELETED, Reason.LINK_DELETED),
        ({"state": LinkState.BLOCKED}, Outcome.BLOCKED, Reason.LINK_BLOCKED),
        ({"state": LinkState.BLOCKED, "expires_at": AT - HOUR}, Outcome.BLOCKED, Reason.LINK_BLOCKED),
        ({"expires_at": AT - HOUR}, Outcome.EXPIRED, Reason.LINK_EXPIRED),
        ({"expires_at": AT}, Outcome.EXPIRED, Reason.LINK_EXPIRED),
        ({"starts_at": AT + HOUR}, Outcome.NOT_FOUND, Reason.LINK_NOT_FOUND),
        (None, Outcome.NOT_FOUND, Reason.LINK_NOT_FOUND),
    ],
)
def test_a_link_that_may_not_redirect_says_why(
    changes: dict[str, Any] | None, outcome: Outcome, reason: Reason
) -> None:
    """Deleted and expired (from the very moment on), blocked, not started and unknown are told apart."""
    link = None if changes is None else make_link(**changes)

    assert decide(link, AT) == Refusal(outcome, reason)


@pytest.mark.parametrize("changes", [{"starts_at": AT}, {"expires_at": AT + HOUR}, {"starts_at": AT - HOUR}])
def test_a_link_redirects_between_start_and_end(changes: dict[str, Any]) -> None:
    """The start belongs to a link's time, the end does not."""
    assert isinstance(decide(make_link(**changes), AT), Redirect)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_ready_answer_is_what_was_decided(status: int) -> None:
    """On the wire the redirect has its status, its phrase, and the headers of the decision in their order."""
    link = make_link(redirect_status=status)
    verdict = decide(link, AT)

    answer = ready_answer(link, AT)

    assert isinstance(verdict, Redirect)
    assert answer is not None
    line, *headers = answer.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert [tuple(header.split(b": ", 1)) for header in headers] == list(verdict.headers)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": LinkState.DELETED, "deleted_at": AT},
        {"state": LinkState.BLOCKED},
        {"expires_at": AT},
        {"starts_at": AT + HOUR},
        {"long_url": "https://e.com/\r\nset-cookie: x"},
        {"long_url": "https://e.com/\x7f"},
    ],
)
def test_what_does_not_redirect_has_no_ready_answer(changes: dict[str, Any]) -> None:
    """Nothing is ready for a link that is deleted, blocked, over or not there yet, and nothing that would be two
    headers."""
    assert ready_answer(make_link(**changes), AT) is None


def test_only_possible_codes_are_looked_for() -> None:
    """A path that cannot be a code, or is one of our own words, is refused without asking anybody."""
    assert code_of_path("/aB3dE7x") == "aB3dE7x"
    assert code_of_path("/my-link_1") == "my-link_1"
    for path in ("/", "/ab", "/a b c", "/favicon.ico", "/" + "x" * 65, "/ümlaut", "/a/b"):
        assert code_of_path(path) is None, path
    assert all(code_of_path(f"/{word}") is None for word in RESERVED)
    assert code_of_path("/Console") is None


@pytest.mark.rule("S7")
@pytest.mark.parametrize(
    ("visit", "expected"),
    [
        (Visit("GET", CHROME, ""), VisitorClass.HUMAN),
        (Visit("HEAD", CHROME, ""), VisitorClass.BOT),
        (Visit("GET", "", ""), VisitorClass.BOT),
        (Visit("GET", "curl/8.5.0", ""), VisitorClass.BOT),
        (
            Visit("GET", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", ""),
            VisitorClass.BOT,
        ),
        (Visit("GET", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", ""), VisitorClass.BOT),
        (Visit("GET", "WhatsApp/2.23.20.0", ""), VisitorClass.BOT),
        (Visit("GET", "Mozilla/5.0 (compatible; bingbot/2.0)", ""), VisitorClass.BOT),
        (Visit("GET", "python-requests/2.32", ""), VisitorClass.BOT),
        (
            Visit("GET", "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) Mobile Safari/537.36 Chrome/1", ""),
            VisitorClass.HUMAN,
        ),
        (Visit("GET", CHROME, "prefetch"), VisitorClass.PREFETCH),
        (Visit("GET", CHROME, "prefetch;prerender"), VisitorClass.PREFETCH),
        (Visit("GET", "Googlebot/2.1", "Prefetch"), VisitorClass.PREFETCH),
        (Visit("HEAD", CHROME, "prefetch"), VisitorClass.PREFETCH),
    ],
)
def test_visitors_are_told_apart(visit: Visit, expected: VisitorClass) -> None:
    """Looking ahead is no click, a crawler or a HEAD is no person, and no User-Agent is no browser."""
    assert classify(visit) is expected


def test_visitors_are_known_for_a_day_under_one_key() -> None:
    """The same address and User-Agent hash alike on one day; another day, address, agent or key hashes otherwise."""
    today, tomorrow = date(2026, 11, 22), date(2026, 11, 23)
    key = daily_key(b"k" * 32, today)
    same = visitor_hash(key, address="203.0.113.9", user_agent=CHROME)

    assert same == visitor_hash(daily_key(b"k" * 32, today), address="203.0.113.9", user_agent=CHROME)
    others = {
        visitor_hash(daily_key(b"k" * 32, tomorrow), address="203.0.113.9", user_agent=CHROME),
        visitor_hash(daily_key(b"x" * 32, today), address="203.0.113.9", user_agent=CHROME),
        visitor_hash(key, address="203.0.113.8", user_agent=CHROME),
        visitor_hash(key, address="203.0.113.9", user_agent="curl/8"),
    }
    assert len(others | {same}) == 5
    assert len(same) == 16


@pytest.mark.parametrize(
    ("forwarded", "proxies", "expected"),
    [
        ("198.51.100.1", 0, "10.0.0.1"),
        ("198.51.100.1", 1, "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1", 1, "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1, 10.9.9.9", 2, "198.51.100.1"),
        ("198.51.100.1", 2, "10.0.0.1"),
        ("", 1, "10.0.0.1"),
        ("unknown", 1, "10.0.0.1"),
        ("2001:DB8::1", 1, "2001:db8::1"),
    ],
)
def test_a_client_cannot_choose_its_address(forwarded: str, proxies: int, expected: str) -> None:
    """Only what our own proxies appended to X-Forwarded-For counts; without them the header is hearsay."""
    assert client_address("10.0.0.1", forwarded, proxies) == expected


@pytest.mark.parametrize(("stated", "expected"), [("de", "DE"), (" FR ", "FR"), ("XX", ""), ("T1", ""), ("DEU", "")])
def test_a_country_is_two_letters(stated: str, expected: str) -> None:
    """Whatever is no country of two letters is unknown."""
    assert country_of(stated) == expected


def test_long_headers_are_cut_between_characters() -> None:
    """User-Agent and Referer keep at most 512 bytes, and stay text."""
    assert cut("x" * 600) == "x" * 512
    assert cut("é" * 300) == "é" * 256
    assert cut("a" + "é" * 300) == "a" + "é" * 255
    assert cut("short") == "short"


@pytest.mark.parametrize(
    ("if_match", "expected"),
    [("", 0), ("*", 0), ('"3"', 3), (' "12" ', 12), ('W/"3"', STALE), ('"x"', STALE), ("3", STALE), ('"0"', STALE)],
)
def test_if_match_names_a_version(if_match: str, expected: int | Stale) -> None:
    """A strong tag is a version, * is any; a tag that we never give out can match nothing."""
    assert expected_version(if_match) == expected


def test_if_match_takes_one_tag() -> None:
    """A list of tags is refused, not half understood."""
    with pytest.raises(ValueError, match="one tag"):
        expected_version('"1", "2"')
    assert expected_version(etag(7)) == 7


def test_statistics_have_a_range() -> None:
    """Thirty days until now by default; 92 days at most; never backwards or empty."""
    day = timedelta(days=1)

    assert stats_range(None, None, AT) == TimeRange(AT - 30 * day, AT)
    assert stats_range(None, AT - day, AT) == TimeRange(AT - 31 * day, AT - day)
    assert stats_range(AT - 92 * day, AT, AT) == TimeRange(AT - 92 * day, AT)
    first = datetime.min.replace(tzinfo=UTC)
    for start, end in ((AT - 92 * day - HOUR, AT), (AT, AT), (AT, AT - HOUR), (None, first)):
        with pytest.raises(ValueError, match="range"):
            stats_range(start, end, AT)
