"""What `linkmesh status` says of the outbox."""

import pytest
from prometheus_client import REGISTRY, generate_latest

from link_service.loops.cache_guard import OUTBOX_MAX
from link_service.loops.relay import AGE_SECONDS, BYTES, ENTRIES
from linkmesh.local.outbox import Waiting, as_json, waiting_in


def test_the_figures_are_read_as_link_service_writes_them() -> None:
    """The names are the meters' own: one that is renamed is noticed here."""
    for meter, value in ((ENTRIES, 1234), (AGE_SECONDS, 12.5), (BYTES, 3_400_000), (OUTBOX_MAX, 4.29e8)):
        meter.set(value)

    named = REGISTRY.restricted_registry(["outbox_entries", "outbox_age_seconds", "outbox_bytes", "outbox_bytes_max"])
    found = waiting_in(generate_latest(named).decode())

    assert found == Waiting(1234, 12.5, 3_400_000, 429_000_000)
    assert found.sentence() == "outbox 1234 events, the oldest 12.5 s old, 3.4 MB, 1% of its budget"
    assert as_json(found) == {"entries": 1234, "age_seconds": 12.5, "size_bytes": 3_400_000, "bytes_max": 429_000_000}


@pytest.mark.parametrize(
    ("exposition", "sentence"),
    [
        ("outbox_entries 0.0\noutbox_bytes 0.0\noutbox_age_seconds 0.0\n", "outbox empty"),
        (
            "outbox_entries 1.0\noutbox_bytes 900.0\noutbox_age_seconds 0.04\n",
            "outbox 1 event, the oldest 0.0 s old, 0.0 MB",
        ),
    ],
)
def test_what_a_person_reads(exposition: str, sentence: str) -> None:
    """Empty is a word, a budget that is not known is left out."""
    found = waiting_in(exposition)

    assert found is not None
    assert found.sentence() == sentence


def test_a_process_without_an_outbox_says_nothing() -> None:
    """Nothing is not an empty outbox."""
    assert waiting_in("consumer_lag_records 3.0\n") is None
