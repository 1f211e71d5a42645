"""Merkle Tree Hashes of RFC 6962, section 2.1, and a tree that remembers only its right edge.

The edge is what C2SP tlog-tiles calls the partial tiles: per level at most 255 hashes, from which the root follows and
to which leaves are appended. A tile has 256 hashes; level l + 1 holds one hash for each *full* tile of level l.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256

HASH_BYTES = 32
TILE_WIDTH = 256
EMPTY_ROOT = sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """The right edge of a tree: edges[level] are the hashes of the partial tile of that level, none if it is full."""

    size: int = 0
    edges: tuple[tuple[bytes, ...], ...] = ()

    @property
    def root(self) -> bytes:
        """MTH of all leaves; 32 bytes."""
        peaks = [peak for edge in reversed(self.edges) for peak in _peaks(edge)]
        if not peaks:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(peaks))


EMPTY = Tree()


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive hashes of one level, all in one tile: hash number 0 is the tile's first."""

    level: int
    index: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """A tree that has grown, and the tiles that are new or wider now, each whole."""

    tree: Tree
    tiles: tuple[Row, ...]


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf: SHA-256 of 0x00 and the entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 of 0x01 and both children."""
    return sha256(b"\x01" + left + right).digest()


def grow(tree: Tree, leaf_hashes: Sequence[bytes]) -> Growth:
    """The tree with these leaves appended. Partial tiles on the way are left out: only the last state is told."""
    tiles: list[Row] = []
    edges: list[tuple[bytes, ...]] = []
    arriving = list(leaf_hashes)
    while arriving or len(edges) < len(tree.edges):
        level = len(edges)
        row = [*(tree.edges[level] if level < len(tree.edges) else ()), *arriving]
        first = tree.size // TILE_WIDTH ** (level + 1)
        chunks = [tuple(row[at : at + TILE_WIDTH]) for at in range(0, len(row), TILE_WIDTH)]
        if arriving:
            tiles.extend(Row(level, first + place, chunk) for place, chunk in enumerate(chunks))
        full = [chunk for chunk in chunks if len(chunk) == TILE_WIDTH]
        edges.append(() if len(full) == len(chunks) else chunks[-1])
        arriving = [perfect_root(chunk) for chunk in full]
    return Growth(Tree(tree.size + len(leaf_hashes), tuple(edges)), tuple(tiles))


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a perfect subtree, by the hashes of one of its levels (a power of two of them)."""
    (peak,) = _peaks(hashes)
    return peak


def _peaks(hashes: Iterable[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees that these hashes make, largest (and leftmost) first."""
    peaks: list[tuple[int, bytes]] = []
    for hash_ in hashes:
        height, peak = 0, hash_
        while peaks and peaks[-1][0] == height:
            peak = node_hash(peaks.pop()[1], peak)
            height += 1
        peaks.append((height, peak))
    return [peak for _, peak in peaks]
