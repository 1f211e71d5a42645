"""What link_service needs of the world: each port with its delivery and its errors.

Every call ends within a deadline of its adapter's, and raises Unavailable when the other side is away, hung or
throttled; what a call that changes something has done is then not known, unless the port says otherwise.
"""

from link_service.ports.cache import (
    Conflict,
    Done,
    Full,
    Held,
    Intents,
    Late,
    Leased,
    LeaseNeeded,
    LinkCache,
    Present,
    Restoring,
    Verdict,
)
from link_service.ports.cache_server import CacheFitness, CacheServer, MemoryUse
from link_service.ports.outbox import EventLog, Outbox, OutboxDepth, Position, QueuedEntry
from link_service.ports.tables import (
    READS_MAX,
    Accounts,
    BadCursorError,
    IdCounter,
    KeyClaim,
    KeyPage,
    LinkKeys,
    LinkTable,
    StoredKey,
)

__all__ = [
    "READS_MAX",
    "Accounts",
    "BadCursorError",
    "CacheFitness",
    "CacheServer",
    "Conflict",
    "Done",
    "EventLog",
    "Full",
    "Held",
    "IdCounter",
    "Intents",
    "KeyClaim",
    "KeyPage",
    "Late",
    "LeaseNeeded",
    "Leased",
    "LinkCache",
    "LinkKeys",
    "LinkTable",
    "MemoryUse",
    "Outbox",
    "OutboxDepth",
    "Position",
    "Present",
    "QueuedEntry",
    "Restoring",
    "StoredKey",
    "Verdict",
]
