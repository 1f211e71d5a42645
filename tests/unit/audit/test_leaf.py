"""A leaf's bytes and its commitment: fixed for ever, since verifiers elsewhere compute the same."""

import hmac
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from audit.domain.leaf import Leaf, commit, is_indexable, is_of_same_record, leaf_of
from audit.domain.tiles import ENTRY_BYTES_MAX, CorruptError
from audit.handlers.leaf_codec import decode_leaf, encode_leaf
from contracts.link import UserId
from tests.fakes.link_events import event_of, make_link

_LEAF = Leaf(
    topic="links-events",
    partition=3,
    offset=41,
    recorded_at=datetime(2026, 11, 22, 12, 0, 0, 250_000, UTC),
    event_id="0199-a",
    event_type="shortener.events.v1.LinkCreated",
)


@pytest.mark.rule("B3")
def test_bytes_of_a_leaf_are_fixed() -> None:
    """The encoding of format 1, written out: fields in order, defaults left out."""
    entry = encode_leaf(replace(_LEAF, commitment=b"\x01\x02"))

    assert entry == (
        b"\x08\x01"  # format 1
        b"\x12\x0clinks-events"
        b"\x18\x03"  # partition
        b"\x20\x29"  # offset
        b"\x2a\x0b\x08\xc0\xb2\x8b\xd8\x06\x10\x80\xe5\x9a\x77"  # recorded_at: 1795348800 s, 250000000 ns
        b"\x32\x060199-a"
        b"\x3a\x1fshortener.events.v1.LinkCreated"
        b"\x42\x02\x01\x02"
    )
    assert decode_leaf(entry) == replace(_LEAF, commitment=b"\x01\x02")


@pytest.mark.rule("B3")
def test_commitment_is_the_documented_one() -> None:
    """HMAC-SHA256 of the value under HMAC-SHA256 of the place under the account's key; nothing else goes in."""
    key, value = bytes(range(32)), b"the record's value"

    made = commit(_LEAF, value, key)

    salt = hmac.new(key, b"links-events|3|41", sha256).digest()
    assert made == replace(_LEAF, commitment=hmac.new(salt, value, sha256).digest())
    assert made == commit(_LEAF, value, key)
    others = [
        commit(_LEAF, value, bytes(32)),
        commit(_LEAF, b"other", key),
        commit(replace(_LEAF, offset=42), value, key),
    ]
    assert len({made.commitment, *(other.commitment for other in others)}) == 4


def test_headers_of_any_length_make_a_leaf_that_fits() -> None:
    """A producer's headers cannot make an entry that the format does not hold."""
    leaf = leaf_of(
        topic="links-events", partition=0, offset=0, timestamp_ms=0, event_id="é" * 100_000, event_type="x" * 100_000
    )

    assert len(encode_leaf(commit(leaf, b"", bytes(32)))) < 1_000 < ENTRY_BYTES_MAX
    assert leaf_of(topic="t", partition=0, offset=0, timestamp_ms=1_500, event_id=None, event_type=None) == Leaf(
        topic="t",
        partition=0,
        offset=0,
        recorded_at=datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC),
        event_id="",
        event_type="",
    )


@pytest.mark.parametrize("entry", [b"", b"\xff", b"\x08\x02", encode_leaf(_LEAF)[:-1]])
def test_what_is_no_leaf_is_refused(entry: bytes) -> None:
    """Torn bytes and formats of later versions are not guessed at."""
    with pytest.raises(CorruptError):
        decode_leaf(entry)


def test_leaves_of_one_record_are_told_from_others() -> None:
    """Place, broker time and event decide; commitments do not, since a key may be gone."""
    assert is_of_same_record(_LEAF, commit(_LEAF, b"x", bytes(32)))
    for other in (
        replace(_LEAF, offset=1),
        replace(_LEAF, event_id="b"),
        replace(_LEAF, recorded_at=datetime(2026, 1, 1, tzinfo=UTC)),
    ):
        assert not is_of_same_record(_LEAF, other)


def test_names_that_no_table_key_holds_are_not_indexed() -> None:
    """An absurd name is a leaf all the same, and cannot stop the log by a database that refuses it."""
    event = event_of(make_link("abc"))

    assert is_indexable(event)
    assert not is_indexable(replace(event, user_id=UserId("é" * 300)))
    assert not is_indexable(event_of(make_link("x" * 600)))
