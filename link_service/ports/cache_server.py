"""The primary Redis itself: which run of it this is, whether it may be trusted, how full it is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.link import LinkKey


class CacheServer(Protocol):
    """What the primary Redis knows beside the links."""

    async def ids_high(self) -> int:
        """The known mark: no leased id lies at or above it, as far as Redis was told; 0 when it was never told."""
        ...

    async def raise_ids_high(self, mark: int) -> None:
        """Raises the mark to at least `mark`. Safe to repeat."""
        ...

    async def run_id(self) -> str:
        """The id of this run of the primary: another one after a restart or a failover."""
        ...

    async def oldest_in_outbox(self, key: LinkKey) -> datetime | None:
        """When, by Redis' clock, the oldest event in this link's outbox stream entered it; None: it is empty."""
        ...


class CacheFitness(Protocol):
    """Whether Redis may be trusted with acknowledgements [R6].

    Raises:
        Unavailable: Redis is away or hangs.
    """

    async def problem(self) -> str | None:
        """Why it may not, as a sentence; None: it may. Loads the Function library where it is missing."""
        ...

    async def memory(self) -> "MemoryUse":
        """How full it is."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory in use, as Redis itself counts it, and the most it may take; 0: there is no such limit."""

    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        """0 … 1 and above; 0 when there is no limit."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes else 0.0
