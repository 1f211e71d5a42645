"""How a log goes on: which leaf each record gets, and what has to be written for it, in which order [B1, B3].

Exactly one leaf per record, whatever is killed when: the offset of the last leaf under the checkpoint says which record
comes next, and entries that were written beyond the checkpoint are adopted as they are.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from audit.domain.merkle import EMPTY, TILE_WIDTH, Tree, grow, leaf_hash
from audit.domain.tiles import (
    Resource,
    encode_bundle,
    entries_path,
    hashes_path,
    partial_folder,
)


@dataclass(frozen=True, slots=True)
class Adopted:
    """An entry beyond the checkpoint, and the offset that its leaf names."""

    offset: int
    entry: bytes


@dataclass(frozen=True, slots=True)
class LogState:
    """A log as of its checkpoint."""

    tree: Tree = EMPTY
    bundle: tuple[bytes, ...] = ()  # the entries of the partial bundle at the right edge
    last_offset: int | None = None  # of the record of the last leaf; None: no leaf yet
    last_entry: bytes = b""
    checkpoint: bytes | None = None
    adopted: tuple[Adopted, ...] = ()

    @property
    def next_offset(self) -> int | None:
        """Where to go on; None: at the oldest record there is."""
        return None if self.last_offset is None else self.last_offset + 1


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a leaf: the offset of its record, and the entry if it was adopted."""

    offset: int
    entry: bytes | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that are missing: `expected` should have come, `found` came."""

    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Extension:
    """What a longer log needs on disk. First the entries, then the tiles; then the checkpoint may be signed."""

    tree: Tree
    bundle: tuple[bytes, ...]
    entries: tuple[Resource, ...]
    tiles: tuple[Resource, ...]
    outlived: tuple[str, ...]  # folders of partial forms of what is full now


def line_up(state: LogState, offsets: Sequence[int], *, accept_gaps: bool) -> tuple[Slot, ...] | Gap:
    """The next leaves, up to that of the last of these records (in order, all behind the last leaf).

    An adopted entry keeps its place even if its record is no longer among them. A missing record is a Gap, unless a
    person accepts gaps.
    """
    waiting = deque(state.adopted)
    expected = state.next_offset
    slots: list[Slot] = []
    for offset in offsets:
        while waiting and waiting[0].offset <= offset:
            found = waiting.popleft()
            slots.append(Slot(found.offset, found.entry))
            expected = found.offset + 1
        if slots and slots[-1].offset == offset:
            continue
        if expected is not None and offset != expected and not accept_gaps:
            return Gap(expected, offset)
        slots.append(Slot(offset))
        expected = offset + 1
    return tuple(slots)


def extend(state: LogState, entries: Sequence[bytes]) -> Extension:
    """What has to be written to append these entries."""
    growth = grow(state.tree, [leaf_hash(entry) for entry in entries])
    first = state.tree.size // TILE_WIDTH
    pending = [*state.bundle, *entries]
    chunks = [tuple(pending[at : at + TILE_WIDTH]) for at in range(0, len(pending), TILE_WIDTH)]
    full = [entries_path(first + place) for place, chunk in enumerate(chunks) if len(chunk) == TILE_WIDTH]
    full += [hashes_path(row.level, row.index) for row in growth.tiles if len(row.hashes) == TILE_WIDTH]
    return Extension(
        tree=growth.tree,
        bundle=() if not chunks or len(chunks[-1]) == TILE_WIDTH else chunks[-1],
        entries=tuple(
            Resource(entries_path(first + place, len(chunk)), encode_bundle(chunk))
            for place, chunk in enumerate(chunks)
        ),
        tiles=tuple(
            Resource(hashes_path(row.level, row.index, len(row.hashes)), b"".join(row.hashes)) for row in growth.tiles
        ),
        outlived=tuple(partial_folder(path) for path in full),
    )
