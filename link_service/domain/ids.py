"""The ids in hand: blocks of 2^20 from the counter, always a whole spare one beside the one in use [K1].

2^20 ids last an hour at 290 creates a second: so long creates go on without the database.
"""

from collections import deque
from dataclasses import dataclass

from contracts.codes import ID_BLOCK


@dataclass(frozen=True, slots=True)
class IdBlock:
    """The ids `first` … `first` + 2^20 - 1, leased by one process alone."""

    first: int

    @property
    def end(self) -> int:
        """The first id behind the block."""
        return self.first + ID_BLOCK


class IdStock:
    """The ids this process may still give out. Not shared between threads; a restart forgets them, and ids are many."""

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._spare: deque[IdBlock] = deque()

    def take(self) -> int | None:
        """The next id; None when there are none in hand."""
        if self._next >= self._end:
            if not self._spare:
                return None
            block = self._spare.popleft()
            self._next, self._end = block.first, block.end
        number = self._next
        self._next += 1
        return number

    def add(self, block: IdBlock) -> None:
        """Puts a leased block behind the others."""
        self._spare.append(block)

    @property
    def left(self) -> int:
        """How many ids are in hand."""
        return self._end - self._next + sum(block.end - block.first for block in self._spare)

    @property
    def wants_block(self) -> bool:
        """Whether another block should be leased: no whole one is in hand beside the one in use."""
        return self.left < ID_BLOCK or not self._spare
