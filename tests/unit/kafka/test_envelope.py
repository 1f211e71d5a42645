"""Headers of events, and the schedule of retries."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.backoff import Backoff
from chassis.kafka.codec import event_headers, with_traceparent

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))


def headers_of(time: datetime, traceparent: str | None) -> dict[str, str]:
    """The headers as text."""
    found = event_headers(
        event_id="e1", event_type="a.b.C", source="link_service", time=time, subject="grüße", traceparent=traceparent
    )
    return {name: value.decode() for name, value in found}


def test_cloudevents_binary_mode() -> None:
    """An event's attributes are ce_ headers, UTF-8, its time is in UTC; a trace adds its parent."""
    assert headers_of(AT, "00-x") == {
        "ce_specversion": "1.0",
        "ce_id": "e1",
        "ce_type": "a.b.C",
        "ce_source": "link_service",
        "ce_time": "2026-03-01T10:00:00.250000Z",
        "ce_subject": "grüße",
        "content-type": "application/protobuf",
        "traceparent": "00-x",
    }
    assert "traceparent" not in headers_of(AT, None)


def test_a_time_without_a_zone_is_refused() -> None:
    """A naive time could mean anything."""
    with pytest.raises(ValueError, match="time zone"):
        headers_of(AT.replace(tzinfo=None), None)


def test_a_new_traceparent_replaces_all_old_ones() -> None:
    """There is one parent; other headers keep their place and bytes."""
    old = (("traceparent", b"1"), ("x", b"\xff"), ("traceparent", b"2"))

    assert with_traceparent(old, "3") == (("x", b"\xff"), ("traceparent", b"3"))


def test_delays_grow_to_the_cap() -> None:
    """Without chance the delays double and stay at the cap, however long it goes on."""
    backoff = Backoff(first_s=0.1, cap_s=1.0)

    assert [backoff.delay_s(attempt) for attempt in (0, 1, 2, 3, 4, 10**9)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(attempt=st.integers(-5, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(attempt: int, chance: float) -> None:
    """Jitter moves a delay by at most its share of it, either way."""
    backoff = Backoff(jitter=0.2)
    plain = backoff.delay_s(attempt)

    assert 0.8 * plain - 1e-9 <= backoff.delay_s(attempt, lambda: chance) <= 1.2 * plain + 1e-9


def test_utc_is_written_as_z() -> None:
    """A UTC time ends in Z."""
    assert headers_of(AT.astimezone(UTC), None)["ce_time"].endswith("Z")
