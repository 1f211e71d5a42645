"""The table of topics: what each carries, how it is keyed and kept. Topic creation, docs and tests read it."""

from dataclasses import dataclass
from math import ceil
from zlib import crc32

from contracts.link import LinkKey

_DAY_MS = 86_400_000
_EVENTS = "shortener.events.v1."


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. Every topic is LogAppendTime, so that ages are the broker's and a wrong clock hurts nobody."""

    name: str
    partitions: int
    retention_ms: int
    event_types: tuple[str, ...]  # full names of protobuf messages, the values of ce_type
    groups: tuple[str, ...]


LINKS_EVENTS = Topic(
    "links-events",
    10,  # fixed for life: order and key placement depend on it
    30 * _DAY_MS,
    tuple(_EVENTS + name for name in ("LinkCreated", "LinkUpdated", "LinkDeleted", "LinkRestored")),
    ("database-writer", "webhooks", "audit-log"),
)
ANALYTICS_EVENTS = Topic(
    "analytics-events",
    20,
    7 * _DAY_MS,
    (_EVENTS + "LinkAccessed", _EVENTS + "LinksAccessed", _EVENTS + "SpoolTotals"),
    ("analytics-group",),
)
READ_REQUESTS = Topic("read-requests", 10, 3_600_000, (_EVENTS + "ReadRequested",), ("cache-refresher",))


def dead_letter_topic(name: str) -> str:
    """The topic that takes the dead letters of another."""
    return f"{name}-dlq"


LINKS_EVENTS_DLQ = Topic(dead_letter_topic(LINKS_EVENTS.name), 10, 30 * _DAY_MS, LINKS_EVENTS.event_types, ())
ANALYTICS_EVENTS_DLQ = Topic(
    dead_letter_topic(ANALYTICS_EVENTS.name), 10, 30 * _DAY_MS, ANALYTICS_EVENTS.event_types, ()
)
TOPICS = (LINKS_EVENTS, ANALYTICS_EVENTS, READ_REQUESTS, LINKS_EVENTS_DLQ, ANALYTICS_EVENTS_DLQ)

GROUPS = {group: tuple(t.name for t in TOPICS if group in t.groups) for t in TOPICS for group in t.groups}  # → topics
WITH_DEAD_LETTERS = (LINKS_EVENTS.name, ANALYTICS_EVENTS.name)
RECORDS_PER_S_PER_PARTITION = 1000


def partitions_needed(*, expected_rps: float, consumers: int) -> int:
    """Partitions for a topic: max(expected_rps / 1000, consumers), at least 1.

    Raises:
        ValueError: a figure is negative.
    """
    if expected_rps < 0 or consumers < 0:
        raise ValueError("expected_rps and consumers must not be negative")
    return max(1, ceil(expected_rps / RECORDS_PER_S_PER_PARTITION), consumers)


def click_partition(key: LinkKey, partitions: int) -> int:
    """The partition of `analytics-events` that carries a link's clicks [S3]: crc32 of the UTF-8 key modulo the count.

    Both the gateway, which sends, and analytics, which looks for the owner of a link's counts [A7], go by it.

    Raises:
        ValueError: there are no partitions.
    """
    if partitions < 1:
        raise ValueError("a topic has at least one partition")
    return crc32(key.encode()) % partitions
