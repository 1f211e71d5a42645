"""Which records of a gateway's spool are new [S4]: sequences are dense, so a repeat and a gap can both be told.

A gateway that was killed sends again what it cannot know to have arrived: the same clicks, on the same partition, in
the same order, under the same sequences, at other offsets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

SPOOL_AGE_MAX_MS = 7 * 86_400_000  # older ones are neither sent nor remembered [S5]


@dataclass(frozen=True, slots=True)
class Spool:
    """What is known of a spool on a partition: its last sequence, and how many of its clicks were counted [A10]."""

    last: int
    counted: int


class Verdict(Enum):
    """What a sequence says of its record."""

    NEW = auto()
    REPEAT = auto()  # counted before
    GAP = auto()  # new, but something before it never arrived
    STALE = auto()  # of a spool too old to tell


def judge(known: Mapping[str, Spool], spool_id: str, sequence: int, *, stored_ms: int) -> Verdict:
    """What a record of this spool and sequence is. `stored_ms` is the broker's time of the record."""
    if is_forgotten(spool_id, now_ms=stored_ms):
        return Verdict.STALE
    last = known[spool_id].last if spool_id in known else 0
    if sequence <= last:
        return Verdict.REPEAT
    return Verdict.NEW if sequence == last + 1 else Verdict.GAP


def is_forgotten(spool_id: str, *, now_ms: int) -> bool:
    """Whether a spool is too old to be remembered, by the time in its UUIDv7.

    Raises:
        ValueError: the id is no UUID.
    """
    return now_ms - (UUID(spool_id).int >> 80) > SPOOL_AGE_MAX_MS
