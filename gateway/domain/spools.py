"""Clicks on their way from a spool to the log: what is sent at a time, and which spools are too old to be."""

from dataclasses import dataclass
from uuid import UUID

from gateway.domain.spool_format import Run

SPOOL_AGE_MAX_MS = 7 * 86_400_000  # older ones are neither sent nor remembered, here and by the counter [S5]


@dataclass(frozen=True, slots=True)
class SpoolTotals:
    """What a spool's own books say [S8]. `closed`: nothing is recorded there any more."""

    recorded: int
    dropped: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Shipment:
    """Something of one spool that travels in one record: clicks, or its totals."""

    spool_id: str
    partition: int
    content: Run | SpoolTotals


def spool_began_ms(spool_id: str) -> int:
    """When a spool was begun, by its UUIDv7.

    Raises:
        ValueError: the id is no UUID.
    """
    return UUID(spool_id).int >> 80


def is_outdated(spool_id: str, now_ms: int) -> bool:
    """Whether a spool is too old to be sent: the counter has forgotten how far it had come with it [S5]."""
    return now_ms - spool_began_ms(spool_id) > SPOOL_AGE_MAX_MS
