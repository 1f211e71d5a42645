"""Deliveries: who is told of an event, when an attempt is due, and what follows from its answer [H1, H2].

The schedule is the one Standard Webhooks 1.0 recommends: ten attempts within about four days, spread by jitter so that
a receiver that comes back is not met by everybody at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from zlib import crc32

from contracts.link import EventId, EventType, LinkEvent, UserId
from webhook.domain.endpoints import Endpoint, EndpointId

DUE_BUCKETS = 16  # partitions of the index of due deliveries, so that no one of them is hot
EVENT_AGE_MAX = timedelta(days=31)  # above the 30 days of the topic, below the life of a row: no event is told anew
ROW_LIFE = timedelta(days=40)
_MINUTE, _HOUR = 60, 3600
DELAYS_S = (
    0, 5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR
)  # fmt: skip
JITTER = 0.2
RETRY_AFTER_S_MAX = float(24 * _HOUR)  # as long as the longest delay: a receiver cannot park a row for ever
CLOCKS_APART_S = 60.0  # what clocks of several instances may differ
_GONE = 410
_SLOW_DOWN = frozenset({429, 503})


class DeliveryState(Enum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one endpoint. Pending ones have `next_at`; `claim` names who is at it, until next_at."""

    endpoint_id: EndpointId
    user_id: UserId
    event_id: EventId
    event_type: EventType
    short_code: str
    body: str
    traceparent: str
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    last_status: int = 0
    last_error: str = ""
    next_at: datetime | None = None
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt: a status, or 0 and why there is none."""

    status: int
    error: str = ""
    retry_after: str = ""  # the header as it came

    @property
    def is_success(self) -> bool:
        """Whether the receiver took it."""
        return 200 <= self.status < 300


def recipients(
    event: LinkEvent, endpoints: Iterable[Endpoint], *, recorded_at: datetime, now: datetime
) -> list[Endpoint]:
    """Who is told of an event. `recorded_at` is the broker's time of its record.

    Endpoints made after the record are not told. An event that is too old is told to nobody: the rows that prove that
    it was told may be gone, and a replay would tell it again. Its own time counts, since a replay has a new record.
    """
    if now - min(event.at, recorded_at) > EVENT_AGE_MAX:
        return []
    return [item for item in endpoints if item.enabled and item.created_at <= recorded_at and item.wants(event.type)]


def due_bucket(endpoint_id: EndpointId, event_id: EventId) -> int:
    """Which bucket of the index of due deliveries a delivery is in."""
    return crc32(f"{endpoint_id}/{event_id}".encode()) % DUE_BUCKETS


def next_attempt(
    attempts: int, *, now: datetime, retry_after_s: float | None, chance: Callable[[], float]
) -> datetime | None:
    """When to try again after that many attempts; None: never. `chance` returns a number in [0, 1).

    A receiver's Retry-After is a lower bound, and is not jittered away.
    """
    if attempts >= len(DELAYS_S):
        return None
    delay_s = DELAYS_S[attempts] * (1 - JITTER + 2 * JITTER * chance())
    if retry_after_s is not None:
        delay_s = max(delay_s, min(retry_after_s, RETRY_AFTER_S_MAX))
    return now + timedelta(seconds=delay_s)


def after_attempt(delivery: Delivery, answer: Answer, *, now: datetime, chance: Callable[[], float]) -> Delivery:
    """The delivery after an attempt: delivered, given up, or due again. Redirects are failures like any other."""
    attempts = delivery.attempts + 1
    error = "" if answer.is_success else answer.error or f"The receiver answered {answer.status}."
    tried = replace(delivery, attempts=attempts, last_status=answer.status, last_error=error, next_at=None)
    if answer.is_success:
        return replace(tried, state=DeliveryState.DELIVERED)
    if disables(answer):
        return replace(tried, state=DeliveryState.FAILED)
    wait_s = parse_retry_after(answer.retry_after, now=now) if answer.status in _SLOW_DOWN else None
    again = next_attempt(attempts, now=now, retry_after_s=wait_s, chance=chance)
    return replace(tried, next_at=again, state=DeliveryState.PENDING if again else DeliveryState.FAILED)


def without_attempt(delivery: Delivery, why: str) -> Delivery:
    """The delivery given up without another attempt: its endpoint is disabled or gone."""
    return replace(delivery, state=DeliveryState.FAILED, last_error=why, next_at=None)


def given_back(delivery: Delivery, *, now: datetime) -> Delivery:
    """The delivery for whoever comes next, at once."""
    return replace(delivery, next_at=now)


def disables(answer: Answer) -> bool:
    """Whether the receiver said that it wants nothing any more."""
    return answer.status == _GONE


def may_begin(delivery: Delivery, *, now: datetime, attempt_s: float) -> bool:
    """Whether an attempt that begins now ends within the claim's lease."""
    return delivery.next_at is not None and now + timedelta(seconds=attempt_s) <= delivery.next_at


def is_astray(delivery: Delivery, *, now: datetime, lease_s: float) -> bool:
    """Whether a delivery is put off further than any process with a right clock would: nobody would make it in time."""
    if delivery.next_at is None:
        return False
    delay_s = DELAYS_S[min(delivery.attempts, len(DELAYS_S) - 1)] * (1 + JITTER)
    longest_s = lease_s if delivery.claim else max(delay_s, RETRY_AFTER_S_MAX)
    return delivery.next_at > now + timedelta(seconds=longest_s + CLOCKS_APART_S)


def parse_retry_after(text: str, *, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110 section 10.2.3: seconds or a date); None: it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])  # thirty years are enough
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year or a zone with too many digits
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
