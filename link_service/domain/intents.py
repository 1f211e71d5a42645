"""What an idempotency key stands for: one event, decided on once, whatever happens to the calls that carry it [I1]."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.link import EventId, LinkKey

APPLY_WITHIN = timedelta(seconds=30)  # by Redis' clock; later the event is refused, and may safely be replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The event a request makes, on which link. Without an idempotency key it is made once and forgotten."""

    event_id: EventId
    key: LinkKey
    not_after: datetime | None = None
    is_remembered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An idempotency key's durable meaning: the request it came with, and the event that stands for it."""

    body_hash: str
    event_id: EventId
    key: LinkKey
    not_after: datetime

    @property
    def attempt(self) -> Attempt:
        """The attempt that carries it out; safe to repeat."""
        return Attempt(event_id=self.event_id, key=self.key, not_after=self.not_after, is_remembered=True)
