"""Checks a log from its files alone: the signature, then every tile and every entry against the signed root.

Nothing of the writing side's state is used, and the root is computed by RFC 6962's own recursion, so that an error
in the incremental tree cannot hide itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audit.domain.checkpoint import Checkpoint, NotSignedError, Verifier, open_checkpoint
from audit.domain.merkle import EMPTY_ROOT, TILE_WIDTH, leaf_hash, node_hash
from audit.domain.tiles import (
    CHECKPOINT,
    CorruptError,
    Resource,
    decode_bundle,
    decode_hashes,
    entries_path,
    hashes_path,
    width_at,
)

Read = Callable[[str], bytes | None]  # a path below the log's directory


@dataclass(frozen=True, slots=True)
class Verified:
    """A log that was found whole: its checkpoint and all its entries."""

    checkpoint: Checkpoint
    entries: tuple[bytes, ...]


def verify(read: Read, verifier: Verifier) -> Verified:
    """The whole log, proved.

    Raises:
        CorruptError: names what is missing or wrong.
    """
    note = read(CHECKPOINT)
    if note is None:
        raise CorruptError("there is no checkpoint")
    try:
        checkpoint = open_checkpoint(note, verifier)
    except NotSignedError as exc:
        raise CorruptError(f"checkpoint: {exc}") from exc
    entries = tuple(entry for bundle in _bundles(read, checkpoint.size) for entry in bundle)
    hashes = [leaf_hash(entry) for entry in entries]
    _check_tiles(read, hashes)
    if tree_hash(hashes) != checkpoint.root:
        raise CorruptError("the entries do not make the signed root")
    return Verified(checkpoint, entries)


def tree_hash(leaf_hashes: Sequence[bytes]) -> bytes:
    """MTH as RFC 6962 writes it: split at the largest power of two below the number of leaves."""
    count = len(leaf_hashes)
    if count == 0:
        return EMPTY_ROOT
    if count == 1:
        return leaf_hashes[0]
    split = 1 << (count - 1).bit_length() - 1
    return node_hash(tree_hash(leaf_hashes[:split]), tree_hash(leaf_hashes[split:]))


def _bundles(read: Read, size: int) -> list[tuple[bytes, ...]]:
    bundles = []
    for index in range(-(-size // TILE_WIDTH)):
        width = width_at(size, 0, index)
        bundle = decode_bundle(_resource(read, entries_path(index, width), entries_path(index)))
        if len(bundle) < width:
            raise CorruptError(f"{entries_path(index, width)} has {len(bundle)} entries")
        bundles.append(bundle[:width])
    return bundles


def _check_tiles(read: Read, leaf_hashes: Sequence[bytes]) -> None:
    """Every level's tiles against the level below; names the first tile that differs."""
    level, hashes = 0, list(leaf_hashes)
    while hashes:
        for index in range(-(-len(hashes) // TILE_WIDTH)):
            expected = tuple(hashes[index * TILE_WIDTH : (index + 1) * TILE_WIDTH])
            path = hashes_path(level, index, len(expected))
            found = decode_hashes(_resource(read, path, hashes_path(level, index)))
            if found[: len(expected)] != expected:
                raise CorruptError(f"{path} does not fit what is below it")
        whole = len(hashes) // TILE_WIDTH
        hashes = [tree_hash(hashes[index * TILE_WIDTH : (index + 1) * TILE_WIDTH]) for index in range(whole)]
        level += 1


def _resource(read: Read, path: str, full_path: str) -> Resource:
    """A partial resource, or the full one that has taken its place."""
    for candidate in (path, full_path):
        data = read(candidate)
        if data is not None:
            return Resource(candidate, data)
    raise CorruptError(f"{path} is missing")
