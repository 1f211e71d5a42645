"""What `linkmesh status` says of the click spool."""

import pytest

from linkmesh.local.spool import as_json, spool_now, spooled_in


@pytest.mark.parametrize(
    ("exposition", "sentence"),
    [
        ("clicks_queued 0.0\nclicks_dropped_total 0.0\n", "click spool empty"),
        ("clicks_queued 0.0\nclicks_dropped_total 7.0\n", "click spool empty; 7 clicks were dropped"),
        ("clicks_queued 1.0\nclicks_queued_age_seconds 0.04\n", "click spool 1 click, the oldest 0.0 s old"),
        (
            "# HELP clicks_queued Clicks\nclicks_queued 1.2e+06\nclicks_queued_age_seconds 90.0\nspool_bytes 3e+08\n",
            "click spool 1200000 clicks, the oldest 90.0 s old",
        ),
    ],
)
def test_what_waits_in_words(exposition: str, sentence: str) -> None:
    """Depth and age, and what is lost, as a gateway's metrics have them."""
    found = spooled_in(exposition)

    assert found is not None
    assert found.sentence() == sentence


def test_a_process_without_a_spool_says_nothing() -> None:
    """Nothing is not an empty spool; neither is a gateway that does not run here."""
    assert spooled_in("outbox_entries 1.0\n") is None
    assert spool_now({"admin_ports": {"writer": 9103}}) is None
    assert as_json(None) is None


def test_what_waits_for_programs() -> None:
    """The same figures under names with units."""
    assert as_json(spooled_in("clicks_queued 3.0\nspool_bytes 65536.0\n")) == {
        "clicks": 3,
        "age_seconds": 0.0,
        "dropped": 0,
        "size_bytes": 65536,
    }
