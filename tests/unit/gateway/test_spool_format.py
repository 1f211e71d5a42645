"""Segments byte by byte: what was written is read again, and what was not written whole ends what is read."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.clock import uuid7
from gateway.domain.spool_format import (
    RECORDS_AT,
    TRACED,
    TRACEPARENT_BYTES,
    SegmentHeader,
    UnknownVersionError,
    acknowledged_field,
    dropped_field,
    find_begin,
    find_end,
    pack_header,
    pack_record,
    read_acknowledged,
    read_dropped,
    read_header,
    runs,
)
from gateway.domain.spools import SPOOL_AGE_MAX_MS, is_outdated

AT = datetime(2026, 1, 1, tzinfo=UTC)
SPOOL = uuid7(AT, b"x" * 10)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Click = tuple[bytes, bool]  # what is kept, and whether it has a trace
CLICKS = st.lists(st.tuples(st.binary(min_size=1, max_size=60), st.booleans()), max_size=12)


def segment(clicks: list[Click], *, first: int = 1, size: int = 4096) -> bytearray:
    """A segment with these clicks, as it stands on disk."""
    whole = bytearray(size)
    head = pack_header(
        SegmentHeader(spool_id=SPOOL, partition=7, number=3, size=size, first_sequence=first, began_ms=9)
    )
    whole[: len(head)] = head
    at = RECORDS_AT
    for sequence, (kept, traced) in enumerate(clicks, first):
        record = pack_record(sequence, TRACE.encode() + kept if traced else kept, TRACED if traced else 0)
        whole[at : at + len(record)] = record
        at += len(record)
    return whole


def read(whole: bytes, *, at: int = RECORDS_AT, end: int | None = None, clicks_max: int = 500) -> list[tuple[int, int]]:
    """What is read from there on: first sequence and number of clicks of each run."""
    stop = find_end(whole, read_header(whole).first_sequence).at if end is None else end  # type: ignore[union-attr]
    found = runs(whole[at:stop], at, clicks_max=clicks_max, bytes_max=200_000, runs_max=64)
    return [(run.first_sequence, run.count) for run in found]


@pytest.mark.rule("S2")
@given(CLICKS, st.integers(1, 2**40), st.integers(1, 5))
def test_what_is_recorded_is_read_again(clicks: list[Click], first: int, clicks_max: int) -> None:
    """All clicks, in order, under dense sequences; many together, one with a trace alone, each with its own trace."""
    whole = bytes(segment(clicks, first=first))

    end = find_end(whole, first)
    found = runs(whole[RECORDS_AT : end.at], RECORDS_AT, clicks_max=clicks_max, bytes_max=200_000, runs_max=64)

    assert (end.last_sequence, end.torn) == (first + len(clicks) - 1, False)
    assert b"".join(run.clicks for run in found) == b"".join(kept for kept, _ in clicks)
    sequence = first
    for run in found:
        kept, traced = clicks[sequence - first]
        assert run.first_sequence == sequence
        assert run.count <= clicks_max
        assert (run.traceparent == TRACE) == traced
        assert not traced or (run.count, run.clicks) == (1, kept)
        sequence += run.count
    assert sequence == first + len(clicks)
    assert (found[-1].until if found else RECORDS_AT) == end.at


@pytest.mark.rule("S2")
def test_a_tail_torn_at_any_byte_ends_the_segment() -> None:
    """Of a record only a part was written: it is not read, everything before it is."""
    clicks = [(b"one", False), (b"two", False), (b"three" * 5, False)]
    before, whole = segment(clicks[:2]), segment(clicks)
    begin, end = find_end(bytes(before), 1).at, find_end(bytes(whole), 1).at

    for torn_at in range(begin + 1, end):
        torn = bytearray(before)
        torn[begin:torn_at] = whole[begin:torn_at]
        found = find_end(bytes(torn), 1)

        assert (found.at, found.last_sequence) == (begin, 2), torn_at
        assert found.torn, torn_at
        assert read(bytes(torn)) == [(1, 2)]


@pytest.mark.rule("S2")
@given(st.integers(RECORDS_AT, 4095), st.integers(0, 7))
@example(RECORDS_AT, 0)
def test_a_flipped_bit_ends_the_segment_there(place: int, bit: int) -> None:
    """Damage is found by the CRC: nothing wrong is ever read, and all before it is."""
    clicks = [(bytes([number]) * 30, number % 3 == 0) for number in range(8)]
    whole = segment(clicks)
    good = find_end(bytes(whole), 1)
    whole[place] ^= 1 << bit

    found = find_end(bytes(whole), 1)

    if place < good.at:
        assert found.torn
        assert found.at <= place
        assert found.last_sequence < good.last_sequence
    else:
        assert (found.at, found.last_sequence) == (good.at, good.last_sequence)
    kept = b"".join(run.clicks for run in _runs(bytes(whole), found.at))
    assert b"".join(kept for kept, _ in clicks).startswith(kept)


def _runs(whole: bytes, end: int):  # type: ignore[no-untyped-def]  # the list of runs
    return runs(whole[RECORDS_AT:end], RECORDS_AT, clicks_max=500, bytes_max=200_000, runs_max=64)


@pytest.mark.rule("S2")
def test_a_record_out_of_sequence_ends_the_segment() -> None:
    """A whole record under a sequence that is not the next was not written there by us."""
    whole = segment([(b"one", False)])
    at = find_end(bytes(whole), 1).at
    stray = pack_record(7, b"seven")
    whole[at : at + len(stray)] = stray

    found = find_end(bytes(whole), 1)

    assert (found.at, found.last_sequence, found.torn) == (at, 1, True)


def test_what_is_taken_at_a_time_is_bounded() -> None:
    """By clicks, by bytes and by records; a block that ends within a record leaves it for later."""
    whole = bytes(segment([(b"x" * 100, False)] * 20))
    end = find_end(whole, 1).at

    by_clicks = runs(whole[RECORDS_AT:end], RECORDS_AT, clicks_max=8, bytes_max=10_000, runs_max=64)
    by_bytes = runs(whole[RECORDS_AT:end], RECORDS_AT, clicks_max=500, bytes_max=300, runs_max=64)
    by_records = runs(whole[RECORDS_AT:end], RECORDS_AT, clicks_max=1, bytes_max=10_000, runs_max=3)
    cut = runs(whole[RECORDS_AT : end - 1], RECORDS_AT, clicks_max=500, bytes_max=10_000, runs_max=64)

    assert [run.count for run in by_clicks] == [8, 8, 4]
    assert max(len(run.clicks) for run in by_bytes) <= 300
    assert sum(run.count for run in by_bytes) == 20
    assert [run.first_sequence for run in by_records] == [1, 2, 3]
    assert [run.count for run in cut] == [19]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_marks_are_read_again(acknowledged: int, dropped: int) -> None:
    """What the broker has and what was dropped stand in the header, each under its own CRC; damaged, they are 0."""
    whole = segment([(b"one", False)])
    for place, data in (acknowledged_field(acknowledged), dropped_field(dropped)):
        whole[place] = data

    assert (read_acknowledged(bytes(whole)), read_dropped(bytes(whole))) == (acknowledged, dropped)

    whole[acknowledged_field(0)[0].start] ^= 1
    assert (read_acknowledged(bytes(whole)), read_dropped(bytes(whole))) == (0, dropped)


def test_where_to_go_on_behind_the_mark() -> None:
    """From the first record that is not acknowledged; from the end if all are."""
    whole = bytes(segment([(b"x", False)] * 5, first=11))
    end = find_end(whole, 11).at

    assert [read(whole, at=find_begin(whole, end, mark), end=end) for mark in (0, 10, 11, 14, 15, 99)] == [
        [(11, 5)],
        [(11, 5)],
        [(12, 4)],
        [(15, 1)],
        [],
        [],
    ]


@pytest.mark.rule("S2")
def test_a_header_says_what_it_was_told_or_nothing() -> None:
    """Round trip; damaged or absent it is none; a newer version is not guessed at, so that its gateway can drain it."""
    header = SegmentHeader(spool_id=SPOOL, partition=19, number=2, size=4096, first_sequence=77, began_ms=1)
    whole = bytearray(4096)
    whole[: len(pack_header(header))] = pack_header(header)

    assert read_header(bytes(whole)) == header
    assert read_header(bytes(4096)) is None
    for place in range(len(pack_header(header))):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        assert read_header(bytes(damaged)) is None

    whole[4] = 2
    newer = bytearray(whole)
    newer[: len(pack_header(header))] = _resealed(bytes(whole[: len(pack_header(header))]))
    with pytest.raises(UnknownVersionError):
        read_header(bytes(newer))


def _resealed(head: bytes) -> bytes:
    from zlib import crc32

    return head[:-4] + crc32(head[:-4]).to_bytes(4, "little")


@pytest.mark.rule("S5")
def test_spools_are_outdated_by_the_time_in_their_id() -> None:
    """Seven days, by the UUIDv7, to the millisecond."""
    began_ms = int(AT.timestamp() * 1000)

    assert not is_outdated(SPOOL, began_ms + SPOOL_AGE_MAX_MS)
    assert is_outdated(SPOOL, began_ms + SPOOL_AGE_MAX_MS + 1)


def test_a_traceparent_has_its_place() -> None:
    """The length that is set aside for it is that of a traceparent."""
    assert len(TRACE) == TRACEPARENT_BYTES
