"""A link and its events as plain values: all that the services' domains ever see of them."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType
from zlib import crc32

LinkKey = NewType("LinkKey", str)  # short_code on the default domain, <host>/<short_code> on any other
UserId = NewType("UserId", str)
EventId = NewType("EventId", str)  # UUIDv7, canonical text

REDIRECT_STATUSES = (301, 302, 307, 308)


class LinkState(Enum):
    """What a link's code answers; the value is the word in JSON."""

    ACTIVE = "active"
    DELETED = "deleted"
    EXPIRED = "expired"  # derived when read, never stored
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One version of a link. All times are aware UTC."""

    short_code: str
    long_url: str
    user_id: UserId
    version: int
    event_id: EventId
    created_at: datetime
    updated_at: datetime
    domain: str = ""
    is_custom: bool = False
    state: LinkState = LinkState.ACTIVE
    deleted_at: datetime | None = None
    expires_at: datetime | None = None
    starts_at: datetime | None = None
    redirect_status: int = 302
    title: str = ""
    tags: tuple[str, ...] = ()
    restores_to: LinkState = LinkState.ACTIVE  # while it is deleted: the state that a restore brings back

    @property
    def key(self) -> LinkKey:
        """The name of the link in Redis, Kafka and the tables."""
        return link_key(self.short_code, self.domain)

    def state_at(self, moment: datetime) -> LinkState:
        """The state a reader sees at that moment: an active link past its expires_at is EXPIRED."""
        if self.state is LinkState.ACTIVE and self.expires_at is not None and moment >= self.expires_at:
            return LinkState.EXPIRED
        return self.state


class EventType(Enum):
    """A link event; the value is the `type` in JSON and in webhooks."""

    CREATED = "link.created"
    UPDATED = "link.updated"
    DELETED = "link.deleted"
    RESTORED = "link.restored"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field before and after, each as JSON text; empty: none."""

    field: str
    old_value: str
    new_value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEvent:
    """A fact about a link, with the full link that resulted."""

    type: EventType
    event_id: EventId
    version: int
    at: datetime
    user_id: UserId
    link: Link
    changes: tuple[FieldChange, ...] = ()
    trace_id: str = ""


def link_key(short_code: str, domain: str = "") -> LinkKey:
    """The link key of a code on a domain; empty domain: the deployment's default."""
    return LinkKey(f"{domain}/{short_code}" if domain else short_code)


def bucket_of(key: LinkKey) -> int:
    """Which of the 16 slot buckets (`{bb}`) of Redis holds the link."""
    return crc32(key.encode()) % 16
