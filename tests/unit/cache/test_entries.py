"""The cache entry, the outbox entry and the calls: what is written is what is read, anything else is refused."""

import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.clock import uuid7
from contracts.cache import (
    BUCKETS,
    LIBRARY,
    LIBRARY_FILE,
    OUTBOX_OF_MEMORY,
    Mutation,
    decode_entry,
    encode_entry,
    event_id_bytes,
    lease_key,
    mutate_call,
    outbox_key,
    reply_of,
    seen_key,
    url_key,
)
from contracts.link import REDIRECT_STATUSES, EventId, EventType, Link, LinkEvent, LinkState, UserId, bucket_of
from contracts.link_codec import UndecodableError, encode_event, event_type_name
from contracts.outbox_entries import decode_outbox_entry, encode_outbox_entry
from contracts.restoring import decode_offsets, encode_offsets
from link_service.domain.memory import MemoryLevel
from shortener.store.v1.cache_entry_pb2 import CacheEntry
from shortener.store.v1.cache_entry_pb2 import OutboxEntry as OutboxMessage

MOMENTS = st.integers(0, 10**16).map(lambda micros: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50)
LINKS = st.builds(
    Link,
    short_code=st.text("abcXYZ019_-", min_size=3, max_size=64),
    long_url=TEXTS,
    user_id=TEXTS.map(UserId),
    version=st.integers(1, 2**53),
    event_id=st.builds(lambda at, tail: EventId(uuid7(at, tail)), MOMENTS, st.binary(min_size=10, max_size=10)),
    created_at=MOMENTS,
    updated_at=MOMENTS,
    domain=st.sampled_from(["", "go.example.org"]),
    is_custom=st.booleans(),
    state=st.sampled_from([LinkState.ACTIVE, LinkState.DELETED, LinkState.BLOCKED]),
    deleted_at=st.none() | MOMENTS,
    expires_at=st.none() | MOMENTS,
    starts_at=st.none() | MOMENTS,
    redirect_status=st.sampled_from(REDIRECT_STATUSES),
    title=TEXTS,
    tags=st.lists(TEXTS, max_size=3).map(tuple),
)


def event_of(link: Link) -> LinkEvent:
    return LinkEvent(
        type=EventType.CREATED,
        event_id=link.event_id,
        version=link.version,
        at=link.updated_at,
        user_id=link.user_id,
        link=link,
    )


@given(LINKS)
@pytest.mark.rule("R1")
def test_an_entry_is_read_as_it_was_written(link: Link) -> None:
    """Every link comes back from its value, and the fixed header tells format, state, version and event id."""
    value = encode_entry(link)

    assert decode_entry(value) == link
    assert CacheEntry.FromString(value[26:]).SerializeToString(deterministic=True) == value[26:]
    assert value[0] == 1
    assert int.from_bytes(value[2:10], "big") == link.version
    assert value[10:26] == event_id_bytes(link.event_id)


@given(LINKS, st.data())
@pytest.mark.rule("P5")
def test_a_damaged_entry_is_a_miss_or_the_link_never_a_crash(link: Link, data: st.DataObject) -> None:
    """Cut or altered bytes raise UndecodableError, which readers take for a miss, or still are a readable entry."""
    value = bytearray(encode_entry(link))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    cut = bytes(value[: data.draw(st.integers(0, len(value)))])

    for damaged in (bytes(value), cut):
        try:
            decode_entry(damaged)
        except UndecodableError:
            continue


@pytest.mark.rule("P3")
@pytest.mark.parametrize("place", [0, 1, 9, 25])
def test_a_header_that_contradicts_its_link_is_refused(place: int) -> None:
    """Format, state, version and event id of the header must be those of the link behind it."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    link = Link(
        short_code="abc",
        long_url="https://example.org/",
        user_id=UserId("ada"),
        version=7,
        event_id=EventId(uuid7(moment)),
        created_at=moment,
        updated_at=moment,
    )
    value = bytearray(encode_entry(link))
    value[place] ^= 3

    with pytest.raises(UndecodableError):
        decode_entry(bytes(value))


@pytest.mark.parametrize("event_id", ["", "event-1", "01A20461-0103-7198-A7FF-000000000000", "0" * 32])
def test_an_event_id_that_is_no_canonical_uuid_is_refused(event_id: str) -> None:
    """The header holds 16 bytes, so an id that would not come back as it was must not get in."""
    with pytest.raises(ValueError, match=r"canonical|hexadecimal|badly formed"):
        event_id_bytes(EventId(event_id))


@given(LINKS, st.none() | st.just("00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
@pytest.mark.rule("O1")
def test_an_outbox_entry_holds_all_that_the_relay_needs(link: Link, traceparent: str | None) -> None:
    """Type, bytes, key, id, time and trace of an event come back from its entry; the bytes are those that travel."""
    event = event_of(link)

    data = encode_outbox_entry(event, traceparent)
    entry = decode_outbox_entry(data)

    assert OutboxMessage.FromString(data).SerializeToString(deterministic=True) == data  # as the library writes it
    assert entry.event_type == event_type_name(event.type)
    assert entry.value == encode_event(event)
    assert (entry.key, entry.event_id, entry.at) == (link.key, event.event_id, event.at)
    assert entry.traceparent == traceparent


@given(st.binary(max_size=200))
def test_other_bytes_are_no_outbox_entry(data: bytes) -> None:
    """Random bytes raise UndecodableError, or happen to be an entry with everything in it."""
    try:
        entry = decode_outbox_entry(data)
    except UndecodableError:
        return
    assert entry.key
    assert entry.value


@given(LINKS)
@pytest.mark.rule("R1")
def test_all_keys_of_a_link_carry_one_slot_tag(link: Link) -> None:
    """One Function call touches value, lease, result and outbox: in a cluster they must be in one slot."""
    keys = [url_key(link.key), lease_key(link.key), seen_key(link.key, link.event_id), outbox_key(bucket_of(link.key))]

    tags = {key[key.index("{") : key.index("}") + 1] for key in keys}

    assert len(tags) == 1
    assert tags == {f"{{{bucket_of(link.key):02d}}}"}
    assert 0 <= bucket_of(link.key) < BUCKETS


def test_the_outbox_budget_is_shared_by_the_buckets() -> None:
    """O3's budget is one figure for a deployment; each stream gets its sixteenth."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    link = Link(
        short_code="abc",
        long_url="https://example.org/",
        user_id=UserId("ada"),
        version=1,
        event_id=EventId(uuid7(moment)),
        created_at=moment,
        updated_at=moment,
    )

    call = mutate_call(Mutation(event=event_of(link), base_version=0), outbox_bytes_max=1600)

    assert call.values[6] == 100
    assert call.arguments[:2] == ("linkmesh_v3_mutate", 5)


@pytest.mark.rule("R6")
def test_a_changed_library_has_a_new_name() -> None:
    """Redis keeps a library over restarts, and processes refuse one of their name with another text: whoever changes
    the text must change the name, in all of its functions, and then this.
    """
    body = resources.files("contracts").joinpath(LIBRARY_FILE).read_bytes()

    assert (LIBRARY, sha256(body).hexdigest()) == (
        "linkmesh_v3",
        "e2796893280475c148ae2e7d93d638849c03f38b1e940b94bb946357f1dbf440",
    )
    assert body.startswith(f"#!lua name={LIBRARY}\n".encode())


@pytest.mark.parametrize(
    ("reply", "expected"), [([b"APPLIED"], ("APPLIED", b"")), ([b"PRESENT", b"\0\1"], ("PRESENT", b"\0\1"))]
)
def test_a_reply_is_a_word_and_perhaps_a_value(reply: object, expected: tuple[str, bytes]) -> None:
    """Both shapes of a reply are read alike."""
    assert reply_of(reply) == expected


@pytest.mark.parametrize("reply", [None, b"OK", 1, [], [1], [b"A", None], [b"A", b"B", b"C"], "OK"])
def test_anything_else_is_no_reply(reply: object) -> None:
    """A reply of another shape is an error of ours, not a verdict."""
    with pytest.raises(UndecodableError):
        reply_of(reply)


@pytest.mark.rule("O3", "R6")
def test_the_library_and_the_meters_mean_the_same_shares() -> None:
    """O3, R6: the budget that is metered is the one that the library refuses by; so are the shares of memory."""
    body = resources.files("contracts").joinpath(LIBRARY_FILE).read_text("utf-8")
    constants = {name: float(value) for name, value in re.findall(r"^local ([A-Z_]+) = ([\d.]+)", body, re.MULTILINE)}

    assert constants["OUTBOX_OF_MEMORY"] == OUTBOX_OF_MEMORY
    assert constants["BUCKETS"] == BUCKETS
    assert [constants[name] for name in ("SHORTEN_FROM", "SHORTEST_FROM", "CREATES_STOP_AT", "CHANGES_STOP_AT")] == [
        level.value for level in MemoryLevel if level is not MemoryLevel.WELL
    ]


@pytest.mark.rule("R8")
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a": 1}', b'{"0": null}', b"\xff"])
def test_what_are_no_offsets_is_not_taken_for_some(data: bytes) -> None:
    """R8: somebody else's value under our key is an error of its own."""
    with pytest.raises(UndecodableError):
        decode_offsets(data)


@pytest.mark.rule("R8")
def test_offsets_are_written_alike_in_whatever_order() -> None:
    """R8: what is settled is compared as text."""
    assert encode_offsets({3: 9, 0: 5}) == encode_offsets({0: 5, 3: 9})
    assert decode_offsets(encode_offsets({3: 9, 0: 5}).encode()) == {0: 5, 3: 9}
