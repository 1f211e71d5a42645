"""How a link reads in JSON, wherever it is shown."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from contracts.link import LinkState
from contracts.link_json import link_json, optional_time_text, time_text
from gateway.handlers.models import LinkBody
from tests.fakes.gateway_peers import make_link

AT = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)


def test_the_fields_are_the_documented_ones_in_their_order() -> None:
    """What the REST interface describes is what is made; a field that is added must be added in both."""
    shown = link_json(make_link("abc"), public_url="https://lm.example", at=AT)

    assert list(shown) == list(LinkBody.model_fields)
    LinkBody.model_validate(shown)


@pytest.mark.parametrize(
    ("domain", "public_url", "short_url"),
    [
        ("", "https://lm.example", "https://lm.example/abc"),
        ("", "https://lm.example/", "https://lm.example/abc"),
        ("go.example.org", "http://127.0.0.1:8080", "https://go.example.org/abc"),
    ],
)
def test_the_short_url_begins_with_the_links_own_host(domain: str, public_url: str, short_url: str) -> None:
    """The deployment's address, unless the link stands on another domain."""
    assert link_json(make_link("abc", domain=domain), public_url=public_url, at=AT)["short_url"] == short_url


def test_the_state_is_that_of_the_moment() -> None:
    """An active link is expired from its expires_at on; a deleted one stays deleted."""
    link = make_link("abc", expires_at=AT)

    states = [link_json(link, public_url="", at=AT + timedelta(seconds=by))["state"] for by in (-1, 0)]
    deleted = link_json(make_link("abc", expires_at=AT, state=LinkState.DELETED), public_url="", at=AT)

    assert states == ["active", "expired"]
    assert deleted["state"] == "deleted"


def test_times_are_rfc_3339_in_utc() -> None:
    """Whatever zone they come in; microseconds only if there are some; none is none."""
    east = timezone(timedelta(hours=2))

    assert time_text(AT.astimezone(east)) == "2026-11-22T12:00:05Z"
    assert time_text(AT.replace(microsecond=120)) == "2026-11-22T12:00:05.000120Z"
    assert optional_time_text(None) is None
    assert optional_time_text(AT) == "2026-11-22T12:00:05Z"
