"""One log through its storage port: found again after whatever happened, extended in the order that survives a crash.

The order is: entries, tiles, (index rows, by the caller), checkpoint. What a crash leaves beyond the checkpoint is
adopted (entries) or written again with the same content (tiles) [B3].
"""

from collections.abc import Sequence
from dataclasses import replace

from audit.domain.checkpoint import NotSignedError, Signer, open_checkpoint
from audit.domain.log import Adopted, Extension, LogState
from audit.domain.merkle import TILE_WIDTH, Tree, leaf_hash
from audit.domain.tiles import (
    CHECKPOINT,
    CorruptError,
    LogName,
    Resource,
    decode_bundle,
    decode_hashes,
    entries_path,
    hashes_path,
    partial_folder,
    width_at,
)
from audit.handlers.leaf_codec import decode_leaf
from audit.ports import LogStoppedError, LogStorage


class LogFiles:
    """Reads and writes one log. The signer's name is the log's origin."""

    def __init__(self, storage: LogStorage, log: LogName, signer: Signer) -> None:
        self._storage = storage
        self._log = log
        self._signer = signer

    async def load(self) -> LogState:
        """The log as of its checkpoint, with the entries beyond it.

        Raises:
            LogStoppedError: the files do not make the signed root, or another key signed it.
            Unavailable: the storage is.
        """
        try:
            return await self._load()
        except (CorruptError, NotSignedError) as exc:
            raise LogStoppedError(self._log, str(exc)) from exc

    async def size(self) -> int:
        """The number of leaves under the checkpoint; 0 without one. Raises as `load` does."""
        note = await self._storage.read(self._log, CHECKPOINT)
        try:
            return open_checkpoint(note, self._signer.verifier).size if note is not None else 0
        except NotSignedError as exc:
            raise LogStoppedError(self._log, str(exc)) from exc

    async def bundle(self, index: int, size: int) -> tuple[bytes, ...]:
        """The entries of one bundle in a log of that size. Raises as `load` does."""
        try:
            return await self._bundle(index, width_at(size, 0, index))
        except CorruptError as exc:
            raise LogStoppedError(self._log, str(exc)) from exc

    async def write(self, extension: Extension) -> None:
        """Entries, then tiles. Raises LogStoppedError if other content is in their place, and Unavailable."""
        await self._storage.write(self._log, extension.entries)
        await self._storage.write(self._log, extension.tiles)

    async def seal(self, before: LogState, extension: Extension) -> bytes:
        """Signs and publishes the checkpoint, and returns it. Raises as `write` does."""
        note = self._signer.sign(extension.tree.size, extension.tree.root)
        await self._storage.replace_checkpoint(self._log, before.checkpoint, note)
        if extension.outlived:
            await self._storage.forget(self._log, extension.outlived)
        return note

    async def _load(self) -> LogState:
        note = await self._storage.read(self._log, CHECKPOINT)
        state = LogState()
        if note is not None:
            head = open_checkpoint(note, self._signer.verifier)
            tree = Tree(head.size, await self._edges(head.size))
            if tree.root != head.root:
                raise CorruptError("the tiles do not make the signed root")
            bundle = await self._edge_bundle(head.size)
            if tree.edges and tuple(leaf_hash(entry) for entry in bundle) != tree.edges[0]:
                raise CorruptError("the last entries do not fit their tile")
            last = await self._last_entry(head.size, bundle)
            last_offset = decode_leaf(last).offset if last else None
            state = LogState(tree, bundle, last_offset, last, note)
        adopted = [Adopted(decode_leaf(entry).offset, entry) for entry in await self._beyond(state)]
        return replace(state, adopted=tuple(adopted))

    async def _edges(self, size: int) -> tuple[tuple[bytes, ...], ...]:
        edges: list[tuple[bytes, ...]] = []
        while (hashes := size // TILE_WIDTH ** len(edges)) > 0:
            width = hashes % TILE_WIDTH
            path = hashes_path(len(edges), hashes // TILE_WIDTH, width)
            edges.append(decode_hashes(await self._resource(path)) if width else ())
        return tuple(edges)

    async def _edge_bundle(self, size: int) -> tuple[bytes, ...]:
        width = size % TILE_WIDTH
        return await self._bundle(size // TILE_WIDTH, width) if width else ()

    async def _last_entry(self, size: int, bundle: Sequence[bytes]) -> bytes:
        if size == 0:
            return b""
        return bundle[-1] if bundle else (await self._bundle(size // TILE_WIDTH - 1, TILE_WIDTH))[-1]

    async def _beyond(self, state: LogState) -> list[bytes]:
        """The entries that were written and not yet signed: the widest bundle at the edge, and full ones behind it."""
        found: list[bytes] = []
        index, known = state.tree.size // TILE_WIDTH, state.bundle
        while True:
            width = await self._widest(index)
            if width <= len(known):
                return found
            bundle = await self._bundle(index, width)
            if bundle[: len(known)] != known:
                raise CorruptError(f"{entries_path(index, width)} does not continue what was signed")
            found.extend(bundle[len(known) :])
            if width < TILE_WIDTH:
                return found
            index, known = index + 1, ()

    async def _widest(self, index: int) -> int:
        if await self._storage.read(self._log, entries_path(index)) is not None:
            return TILE_WIDTH
        names = await self._storage.names(self._log, partial_folder(entries_path(index)))
        return max((int(name) for name in names if name.isdigit()), default=0)

    async def _bundle(self, index: int, width: int) -> tuple[bytes, ...]:
        resource = await self._resource(entries_path(index, width), entries_path(index))
        entries = decode_bundle(resource)
        if len(entries) < width:
            raise CorruptError(f"{resource.path} has {len(entries)} entries")
        return entries[:width]

    async def _resource(self, *paths: str) -> Resource:
        """The first of these that there is: a partial resource goes when the full one has taken its place."""
        for path in paths:
            data = await self._storage.read(self._log, path)
            if data is not None:
                return Resource(path, data)
        raise CorruptError(f"{paths[0]} is missing")
