"""The DynamoDB tables: names, keys and how they are created. Each attribute has one writer, named in docs/CONTRACTS.md.

Attributes are short because DynamoDB bills their names; codecs of rows stand with the process that owns them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from contracts.link import LinkKey, UserId

META = "META"
VERSION_MAX = 999_999_999_999  # what event_sk has room for
CLICKS_EPOCH_PK = "S#EPOCH"  # partition key of the newest life of each partition's log that was seen [A8]
KEY = "KEY"  # sort key of an account's leaf key in table audit


@dataclass(frozen=True, slots=True)
class Index:
    """A global secondary index."""

    name: str
    pk: str
    sk: str
    projection: str = "ALL"  # or KEYS_ONLY


@dataclass(frozen=True, slots=True)
class Table:
    """A table with string keys `pk` and `sk`, billed on demand."""

    name: str
    indexes: tuple[Index, ...] = ()
    numeric: tuple[str, ...] = ()  # key attributes of indexes that are numbers
    ttl: str = ""  # attribute with the second (since 1970) from which the database may remove a row; empty: rows stay


LINKS = Table("links", (Index("by_owner", "owner", "created"),))
CLICKS = Table("clicks")
ACCOUNTS = Table("accounts")
WEBHOOKS = Table("webhooks", (Index("due", "due", "next_at"),), numeric=("next_at",), ttl="ttl")
AUDIT = Table("audit")
COUNTERS = Table("counters")
TABLES = (LINKS, CLICKS, ACCOUNTS, WEBHOOKS, AUDIT, COUNTERS)


def link_pk(key: LinkKey) -> str:
    """Partition key of a link's projection (sort key META) and of its events."""
    return f"L#{key}"


def event_sk(version: int) -> str:
    """Sort key of the event that made a version; sorts as the versions do."""
    return f"E#{version:012d}"


def owner_pk(user_id: UserId) -> str:
    """Partition key of index by_owner."""
    return f"O#{user_id}"


def clicks_pk(key: LinkKey, hour: datetime) -> str:
    """Partition key of a link's counts of one UTC day."""
    return f"A#{key}#{_day(hour)}"


def clicks_sk(hour: datetime, partition: int) -> str:
    """Sort key of the counts of one hour, fed by one partition."""
    return f"H{hour.hour:02d}#P{partition}"


def clicks_tops_pk(user_id: UserId, day: datetime) -> str:
    """Partition key of an account's top links of one UTC day; the sort key is partition_sk."""
    return f"T#{user_id}#{_day(day)}"


def clicks_state_pk(epoch: int) -> str:
    """Partition key of the consumer's state in one life of the topic."""
    return f"S#{epoch}"


def partition_sk(partition: int) -> str:
    """Sort key of one partition's state, of its epoch, and of its part of an account's top links."""
    return f"P{partition}"


def account_pk(user_id: UserId) -> str:
    """Partition key of an account (META) and its keys (K#<id>)."""
    return f"U#{user_id}"


def key_hash_pk(key_hash: str) -> str:
    """Partition key of the look-up of an API key by its HMAC (sort key KEY)."""
    return f"H#{key_hash}"


def endpoints_pk(user_id: UserId) -> str:
    """Partition key of an account's webhook endpoints (one item, sort key ENDPOINTS)."""
    return f"W#{user_id}"


def deliveries_pk(endpoint_id: str) -> str:
    """Partition key of an endpoint's deliveries; the sort key is the event id."""
    return f"D#{endpoint_id}"


def audit_log_pk(log: str) -> str:
    """Partition key of the leaf key (sort key KEY) that a log has for records without an account."""
    return f"P#{log}"


def audit_link_pk(key: LinkKey) -> str:
    """Partition key of the audit entries of a link."""
    return f"C#{key}"


def audit_place_sk(partition: int, offset: int) -> str:
    """Sort key of an audit entry of a link; sorts as the records stand in their partition."""
    return f"{partition:05d}#{offset:019d}"


def audit_account_sk(at: datetime, partition: int, offset: int) -> str:
    """Sort key of an audit entry of an account (its partition key is account_pk); sorts by the event's time."""
    return f"{at.astimezone(UTC).isoformat(timespec='microseconds')}#{audit_place_sk(partition, offset)}"


def due_pk(bucket: int) -> str:
    """Partition key of index due: one bucket of the deliveries that wait for an attempt."""
    return f"due#{bucket}"


@lru_cache(maxsize=1000)
def _day(at: datetime) -> str:
    """A day as rows of counts name it. Thousands of rows a second are of the same few."""
    return f"{at:%Y%m%d}"
