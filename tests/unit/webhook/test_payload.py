"""The bytes that are sent, and their signature."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from contracts.link import FieldChange, LinkState
from tests.fakes.link_events import event_of, make_link
from webhook.domain.payload import body_of
from webhook.domain.signature import secret_of, signed_headers


@given(st.binary(min_size=24, max_size=24), st.text(max_size=200))
def test_what_we_sign_verifies_with_the_standards_own_library(entropy: bytes, text: str) -> None:
    """Any secret, any body; a changed body does not verify."""
    now = datetime.now(UTC)
    secret, body = secret_of(entropy), json.dumps({"text": text}, ensure_ascii=True)

    headers = signed_headers(secret, message_id="id", at=now, body=body)

    assert Webhook(secret).verify(body, headers) == {"text": text}
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(body + " ", headers)


def test_a_signature_is_that_of_the_standards_example() -> None:
    """The example of the Standard Webhooks specification, byte for byte."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=datetime.fromtimestamp(1614265330, UTC),
        body='{"test": 2432232314}',
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_payload_is_the_event_of_the_contract() -> None:
    """{type, timestamp, data}: the event with its changes as JSON values and the full link, times in UTC."""
    link = make_link("abc", version=2, state=LinkState.DELETED)
    changes = (FieldChange("tags", '["a"]', '["a","b"]'), FieldChange("deleted_at", "", '"2026-11-22T12:00:02Z"'))
    event = replace(event_of(link), changes=changes)

    payload = json.loads(body_of(event, public_url="https://lm.example/"))

    assert (payload["type"], payload["timestamp"]) == ("link.deleted", "2026-11-22T12:00:02Z")
    data = payload["data"]
    assert list(data) == ["event_id", "type", "version", "short_code", "user_id", "at", "changes", "link"]
    assert data["changes"] == {
        "tags": {"old": ["a"], "new": ["a", "b"]},
        "deleted_at": {"old": None, "new": "2026-11-22T12:00:02Z"},
    }
    assert data["link"] == {
        "short_code": "abc", "short_url": "https://lm.example/abc", "long_url": "https://example.org/2",
        "user_id": "ada", "is_custom": False, "version": 2, "state": "deleted",
        "created_at": "2026-11-22T12:00:00Z", "updated_at": "2026-11-22T12:00:02Z",
        "deleted_at": "2026-11-22T12:00:02Z", "expires_at": None, "starts_at": None,
        "redirect_status": 302, "title": "A title", "tags": ["a", "b"],
    }  # fmt: skip
