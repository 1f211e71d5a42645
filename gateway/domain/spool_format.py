"""Clicks on disk: how a segment of a spool is laid out, byte by byte [S2].

A segment is a header and then records, one behind the other, up to the first eight bytes that begin none (zeros, as
the file was allocated) or to its end. Everything is little-endian.

    header   "LMSP", version, partition, number of the segment in its spool, bytes of the file, first sequence,
             when it was begun (ms since 1970), id of the spool (16 bytes), CRC32 of these
             at 64: last sequence that the broker has acknowledged, CRC32 of it
             at 80: clicks dropped by the spool so far, CRC32 of it
             at 128: the records
             (the first 52 bytes stand so in every version: one that is not known must not be taken for damaged)
    record   length of what is kept, sequence, flags, what is kept, CRC32 of these

What is kept of a click is its piece of a `LinksAccessed` message (tag, length, `LinkAccessed`), so that the clicks of a
message are pieces of the spool, one behind the other. Flag 1: a traceparent (55 bytes) stands before it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final
from uuid import UUID
from zlib import crc32

VERSION: Final = 1
TRACED: Final = 1
TRACEPARENT_BYTES: Final = 55
RECORDS_AT: Final = 128  # where a segment's records begin
CRC_BYTES: Final = 4
_MAGIC = b"LMSP"
_HEADER = Struct("<4sHHIIQQ16s")
_CRC = Struct("<I")
_COUNT = Struct("<QI")
_RECORD = Struct("<IQB")
_ACKNOWLEDGED_AT = 64
_DROPPED_AT = 80

pack_record_head: Callable[[int, int, int], bytes] = _RECORD.pack  # length, sequence, flags; for the one hot place
RECORD_OVERHEAD: Final = _RECORD.size + CRC_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What a segment says of itself."""

    spool_id: str
    partition: int
    number: int  # within the spool, from 1
    size: int  # bytes of the file
    first_sequence: int
    began_ms: int


class UnknownVersionError(Exception):
    """A segment that a newer gateway wrote: it is left alone."""


@dataclass(frozen=True, slots=True)
class Run:
    """Clicks that stand one behind the other, and travel together. `until`: where the next record begins."""

    first_sequence: int
    count: int
    clicks: bytes  # the `clicks` field of a LinksAccessed
    traceparent: str | None
    until: int


@dataclass(frozen=True, slots=True)
class End:
    """Where the records of a segment end, and the last sequence before. `torn`: by something that is no record."""

    at: int
    last_sequence: int
    torn: bool


def pack_header(header: SegmentHeader) -> bytes:
    """The header's bytes."""
    data = _HEADER.pack(
        _MAGIC,
        VERSION,
        header.partition,
        header.number,
        header.size,
        header.first_sequence,
        header.began_ms,
        UUID(header.spool_id).bytes,
    )
    return data + _CRC.pack(crc32(data))


def read_header(buffer: bytes) -> SegmentHeader | None:
    """The header of a segment; None: it has none, so nothing was recorded in it.

    Raises:
        UnknownVersionError: it is of another version.
    """
    if len(buffer) < RECORDS_AT or buffer[: len(_MAGIC)] != _MAGIC:
        return None
    (crc,) = _CRC.unpack_from(buffer, _HEADER.size)
    if crc != crc32(buffer[: _HEADER.size]):
        return None
    _, version, partition, number, size, first_sequence, began_ms, spool = _HEADER.unpack_from(buffer)
    if version != VERSION:
        raise UnknownVersionError(f"a segment of version {version}")
    return SegmentHeader(
        spool_id=str(UUID(bytes=spool)),
        partition=partition,
        number=number,
        size=size,
        first_sequence=first_sequence,
        began_ms=began_ms,
    )


def acknowledged_field(sequence: int) -> tuple[slice, bytes]:
    """Where and what to write when the broker has everything up to this sequence."""
    return _count_field(_ACKNOWLEDGED_AT, sequence)


def dropped_field(clicks: int) -> tuple[slice, bytes]:
    """Where and what to write when so many clicks were dropped."""
    return _count_field(_DROPPED_AT, clicks)


def read_acknowledged(buffer: bytes) -> int:
    """The last sequence that the broker has for certain; 0: none is known, everything is to be sent again."""
    return _read_count(buffer, _ACKNOWLEDGED_AT)


def read_dropped(buffer: bytes) -> int:
    """How many clicks the spool had dropped."""
    return _read_count(buffer, _DROPPED_AT)


def pack_record(sequence: int, kept: bytes, flags: int = 0) -> bytes:
    """A record."""
    data = pack_record_head(len(kept), sequence, flags) + kept
    return data + crc32(data).to_bytes(CRC_BYTES, "little")


def find_end(buffer: bytes, first_sequence: int) -> End:
    """Reads all records of a segment. A wrong CRC, or a sequence that is not the next, ends it [S2]."""
    at, sequence, size = RECORDS_AT, first_sequence, len(buffer)
    while at + RECORD_OVERHEAD <= size:
        length, found, _ = _RECORD.unpack_from(buffer, at)
        stop = at + _RECORD.size + length
        if not length:
            break
        if stop + CRC_BYTES > size or found != sequence or _CRC.unpack_from(buffer, stop)[0] != crc32(buffer[at:stop]):
            return End(at, sequence - 1, torn=True)
        at, sequence = stop + CRC_BYTES, sequence + 1
    torn = any(buffer[at : at + RECORD_OVERHEAD])  # nothing but zeros follows what was written whole
    return End(at, sequence - 1, torn=torn)


def find_begin(buffer: bytes, end: int, acknowledged: int) -> int:
    """Where the first record of a segment stands that the broker has not acknowledged; `end` if there is none."""
    at = RECORDS_AT
    while at < end:
        length, sequence, _ = _RECORD.unpack_from(buffer, at)
        if sequence > acknowledged:
            break
        at += RECORD_OVERHEAD + length
    return at


def runs(block: bytes, at: int, *, clicks_max: int, bytes_max: int, runs_max: int) -> list[Run]:
    """The clicks of these records, known to be whole, that travel together; a click with a trace travels alone.

    `block` is what stands in a segment from `at` on; where it ends within a record, that record is left for later.
    """
    found: list[Run] = []
    pieces: list[bytes] = []
    place = first = 0
    left, limit = clicks_max, bytes_max  # what may still be added to the run
    size, head, behind = len(block), _RECORD.size, CRC_BYTES
    unpack = _RECORD.unpack_from
    while place + RECORD_OVERHEAD <= size:
        length, sequence, flags = unpack(block, place)
        start = place + head
        stop = start + length
        if stop + behind > size:
            break
        if flags or not left or stop > limit or not pieces:  # once a run
            if pieces:
                found.append(Run(first, len(pieces), b"".join(pieces), None, at + place))
                pieces = []
            if len(found) >= runs_max:
                return found
            if flags & TRACED:
                trace = block[start : start + TRACEPARENT_BYTES].decode("ascii", "replace")
                place = stop + behind
                found.append(Run(sequence, 1, block[start + TRACEPARENT_BYTES : stop], trace, at + place))
                continue
            first, left, limit = sequence, clicks_max, start + bytes_max
        pieces.append(block[start:stop])
        left -= 1
        place = stop + behind
    if pieces:
        found.append(Run(first, len(pieces), b"".join(pieces), None, at + place))
    return found


def _count_field(at: int, value: int) -> tuple[slice, bytes]:
    number = value.to_bytes(8, "little")
    return slice(at, at + _COUNT.size), number + _CRC.pack(crc32(number))


def _read_count(buffer: bytes, at: int) -> int:
    value, crc = _COUNT.unpack_from(buffer, at)
    return int(value) if crc == crc32(buffer[at : at + 8]) else 0
