"""A click: what is kept of an answered redirect."""

from dataclasses import dataclass
from datetime import datetime

from contracts.link import LinkKey, UserId
from gateway.domain.visitors import VisitorClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """A redirect that was answered. `traceparent` is set if its trace is kept."""

    link_key: LinkKey
    user_id: UserId
    at: datetime
    visitor: bytes
    visitor_class: VisitorClass
    user_agent: str
    referrer: str
    country: str
    traceparent: str | None
