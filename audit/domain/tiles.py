"""Where the resources of a log are, and what is in them: C2SP tlog-tiles (https://c2sp.org/tlog-tiles).

`tile/<L>/<N>[.p/<W>]` are hashes, `tile/entries/<N>[.p/<W>]` the entries with a big-endian uint16 length before each.
A tile never changes; a wider partial tile is another resource.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

from audit.domain.merkle import HASH_BYTES, TILE_WIDTH

LogName = NewType("LogName", str)  # <topic>/<partition>: the log's directory, and the end of its origin

CHECKPOINT = "checkpoint"
ENTRY_BYTES_MAX = 0xFFFF
_ENTRIES = "entries"


class CorruptError(ValueError):
    """A resource of a log is not what it must be; the text names it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A file of a log: its path below the log's directory, and its content."""

    path: str
    data: bytes


def log_name(topic: str, partition: int) -> LogName:
    """The name of the log that records a partition."""
    return LogName(f"{topic}/{partition}")


def hashes_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a tile of hashes; width below 256: of the partial one."""
    return _path(str(level), index, width)


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of a bundle of entries."""
    return _path(_ENTRIES, index, width)


def partial_folder(path: str) -> str:
    """The folder that holds the partial forms of the full tile or bundle at `path`."""
    return f"{path}.p"


def width_at(size: int, level: int, index: int) -> int:
    """How many hashes tile `index` of a level has in a tree of that size: 0..256. Entries are as wide as level 0."""
    hashes: int = size // TILE_WIDTH**level  # without the annotation ** of integers may be a float
    return max(0, min(TILE_WIDTH, hashes - index * TILE_WIDTH))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """A bundle of entries.

    Raises:
        ValueError: an entry is longer than 65 535 bytes.
    """
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise ValueError("an entry is longer than the format allows")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(resource: Resource) -> tuple[bytes, ...]:
    """The entries of a bundle.

    Raises:
        CorruptError: it ends within an entry.
    """
    data, entries, at = resource.data, [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise CorruptError(f"{resource.path} ends within an entry")
        entries.append(data[at + 2 : end])
        at = end
    return tuple(entries)


def decode_hashes(resource: Resource) -> tuple[bytes, ...]:
    """The hashes of a tile.

    Raises:
        CorruptError: it ends within a hash.
    """
    data = resource.data
    if len(data) % HASH_BYTES:
        raise CorruptError(f"{resource.path} ends within a hash")
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def _path(kind: str, index: int, width: int) -> str:
    """Index 1234067 is x001/x234/067: folders stay small, and no file is ever in the place of a folder."""
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    whole = "/".join(["tile", kind, *reversed(parts)])
    return whole if width == TILE_WIDTH else f"{whole}.p/{width}"
