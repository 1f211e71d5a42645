"""When a reserved custom code that was never created may be reserved again [K2].

A reservation stands for a create that may still be on its way: in Redis, in the outbox, in Kafka. Two people must never
both be told "yours", so whoever takes it over proves first that the older create is not on its way, or lets it be.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.link import UserId

# The older create can only have been applied while its lease of 30 s was held; 5 s more for clocks that differ.
_SETTLED_AFTER = timedelta(seconds=35)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who reserves, or has reserved, under which run of Redis, and when."""

    user_id: UserId
    redis_run_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What is left of the older create, read in this order under a held lease."""

    has_event_row: bool
    has_entry: bool
    oldest_in_outbox: datetime | None  # of the code's bucket, by Redis' clock; None: the stream is empty
    oldest_unwritten: datetime | None  # of the code's partition, by the broker's clock; None: the writer has caught up


def is_plainly_theirs(older: Claim, wanted: Claim) -> bool:
    """Whether the same account may go on at once: Redis has not restarted, so what it says of the code is the truth."""
    return older.user_id == wanted.user_id and older.redis_run_id == wanted.redis_run_id


def may_take_over(older: Claim, traces: Traces) -> bool:
    """Whether the older create certainly left nothing behind.

    A stream whose oldest entry came in after the older lease had ended cannot hold that create any more.
    """
    settled = older.at + _SETTLED_AFTER
    queues = (traces.oldest_in_outbox, traces.oldest_unwritten)
    quiet = all(oldest is None or oldest > settled for oldest in queues)
    return quiet and not traces.has_event_row and not traces.has_entry
