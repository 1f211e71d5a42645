"""A bounded dictionary that lets go of what is not asked for: SIEVE (Zhang, Yang, Yue, Vigfusson and Rashmi, "SIEVE is
Simpler than LRU: an Efficient Turn-Key Eviction Algorithm for Web Caches", NSDI 2024).

A hit only sets a mark, where LRU moves the entry: that is the whole cost on the path of a redirect. A hand goes from
the oldest to the newest entry, takes marks away, and evicts the first entry that has none; entries keep their order, so
what came lately and was never asked for again goes first. On web traces it misses less than LRU, and a scan cannot
flush it.
"""

from typing import Generic, Self, TypeVar

E = TypeVar("E", bound="Held")


class Held:
    """What a Sieve holds. Whoever finds an entry of use sets `visited`. `weight`: its share of the room."""

    __slots__ = ("_newer", "_older", "path", "visited", "weight")

    def __init__(self, path: bytes, weight: int = 1) -> None:
        self.path = path
        self.weight = weight
        self.visited = False
        self._newer: Self | None = None
        self._older: Self | None = None


class Sieve(Generic[E]):
    """Entries by path, which together weigh at most `size_max`. Look them up in `entries`, which is to be read only."""

    def __init__(self, size_max: int) -> None:
        self.entries: dict[bytes, E] = {}
        self._size_max = size_max
        self._size = 0
        self._newest: E | None = None
        self._oldest: E | None = None
        self._hand: E | None = None  # where the next search for a victim begins; None: at the oldest

    def put(self, entry: E) -> bool:
        """Takes an entry, in the place of one of the same path. True: another one had to go for it."""
        self.drop(entry.path)
        if entry.weight > self._size_max:
            return False
        full = self._size + entry.weight > self._size_max
        while self._size + entry.weight > self._size_max:
            self._evict()
        self._size += entry.weight
        self.entries[entry.path] = entry
        entry._older = self._newest  # noqa: SLF001 (the links belong to this class)
        if self._newest is None:
            self._oldest = entry
        else:
            self._newest._newer = entry  # noqa: SLF001
        self._newest = entry
        return full

    def drop(self, path: bytes) -> bool:
        """Lets go of an entry; whether there was one."""
        entry = self.entries.pop(path, None)
        if entry is None:
            return False
        self._size -= entry.weight
        newer, older = entry._newer, entry._older  # noqa: SLF001
        if self._hand is entry:
            self._hand = newer
        if older is None:
            self._oldest = newer
        else:
            older._newer = newer  # noqa: SLF001
        if newer is None:
            self._newest = older
        else:
            newer._older = older  # noqa: SLF001
        entry._newer = entry._older = None  # noqa: SLF001
        return True

    def clear(self) -> None:
        """Lets go of everything."""
        self.entries.clear()
        self._size = 0
        self._newest = self._oldest = self._hand = None

    def _evict(self) -> None:
        entry = self._hand or self._oldest
        assert entry is not None, "only what holds something is full"
        while entry.visited:  # ends: the hand takes every mark away that it passes
            entry.visited = False
            entry = entry._newer or self._oldest  # noqa: SLF001
            assert entry is not None, "the chain is as long as the dictionary"
        self._hand = entry
        self.drop(entry.path)  # moves the hand on to the next newer one
