"""What a new link must be, and which event a change of a link makes."""

import json
from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from contracts.codes import custom_code_problem
from contracts.link import (
    REDIRECT_STATUSES,
    EventId,
    EventType,
    FieldChange,
    Link,
    LinkEvent,
    LinkState,
    UserId,
)
from contracts.link_json import time_text
from contracts.reasons import Reason
from link_service.domain.destinations import DestinationPolicy, LongUrl, Refused, normal_form

TITLE_MAX = 200
TAGS_MAX, TAG_MAX = 16, 64
ALL_FIELDS = ("long_url", "title", "tags", "expires_at", "starts_at", "redirect_status")  # that an owner may change
_YEARS_MAX = timedelta(days=100 * 366)  # times further off are mistakes, and some formats cannot hold them
_TICK = timedelta(milliseconds=1)  # W3: times follow versions whatever the clocks say


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A link as somebody asks for it. `custom_code` empty: generate one; `redirect_status` 0: 302."""

    long_url: str
    custom_code: str = ""
    expires_at: datetime | None = None
    starts_at: datetime | None = None
    redirect_status: int = 0
    title: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that is not as it must be."""

    field: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Violations:
    """All that is wrong with a wish, and the reason that names the gravest."""

    reason: Reason
    items: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """A wish that was granted: valid, and in normal form. Only `check` makes them."""

    wish: Wish
    long_url: LongUrl
    redirect_status: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Who:
    """The account that acts, the event it makes, and its trace (empty: none)."""

    user_id: UserId
    event_id: EventId
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class NotTheirs:
    """The link belongs to another account, which the caller must not learn."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The caller saw another version than the current one."""

    current: int


@dataclass(frozen=True, slots=True)
class Already:
    """Nothing to do: the link is as it was asked to become."""

    link: Link


def check(wish: Wish, *, now: datetime, policy: DestinationPolicy) -> Terms | Violations:
    """The terms of a new link, or everything that is wrong with the wish."""
    long_url = normal_form(wish.long_url, policy)
    tags = tuple(dict.fromkeys(wish.tags))  # the same label twice is one label
    url = [Violation("long_url", long_url.sentence)] if isinstance(long_url, Refused) else []
    problem = custom_code_problem(wish.custom_code) if wish.custom_code else None
    code = [Violation("custom_code", problem)] if problem else []
    items = (
        *url,
        *code,
        *time_violations(wish, now),
        *text_violations(wish if tags == wish.tags else replace(wish, tags=tags)),
    )
    if items or isinstance(long_url, Refused):
        reason = Reason.INVALID_LONG_URL if url else Reason.INVALID_CUSTOM_CODE if code else Reason.INVALID_FIELD
        return Violations(reason, items)
    return Terms(wish, long_url, wish.redirect_status or 302, tags)


def create(terms: Terms, short_code: str, *, who: Who, now: datetime) -> LinkEvent:
    """The event that makes a link."""
    wish = terms.wish
    link = Link(
        short_code=short_code,
        long_url=terms.long_url,
        user_id=who.user_id,
        version=1,
        event_id=who.event_id,
        created_at=now,
        updated_at=now,
        is_custom=bool(wish.custom_code),
        expires_at=wish.expires_at,
        starts_at=wish.starts_at,
        redirect_status=terms.redirect_status,
        title=wish.title,
        tags=terms.tags,
    )
    return event_of(EventType.CREATED, link, who=who)


def delete(current: Link, *, who: Who, if_version: int, now: datetime) -> LinkEvent | Already | Stale | NotTheirs:
    """The event that ends a link, or why there is none. `if_version` 0: whatever the version is.

    A link that is deleted already stays as it is, whichever version was seen: a delete asks for a state, not a step.
    """
    if current.user_id != who.user_id:
        return NotTheirs()
    if current.state is LinkState.DELETED:
        return Already(current)
    if if_version not in (0, current.version):
        return Stale(current.version)
    at = time_after(current, now)
    tombstone = replace(
        current,
        state=LinkState.DELETED,
        version=current.version + 1,
        event_id=who.event_id,
        updated_at=at,
        deleted_at=at,
        restores_to=current.state,  # a link that was taken down must not come back by a delete and a restore
    )
    changes = (
        FieldChange("state", json.dumps(current.state.value), json.dumps(LinkState.DELETED.value)),
        FieldChange("deleted_at", "", json.dumps(time_text(at))),
    )
    return event_of(EventType.DELETED, tombstone, who=who, changes=changes)


def view(link: Link, *, user_id: UserId, now: datetime) -> Link | NotTheirs:
    """A link as its owner sees it now: its state may have become EXPIRED."""
    if link.user_id != user_id:
        return NotTheirs()
    return replace(link, state=link.state_at(now))


def time_after(previous: Link, now: datetime) -> datetime:
    """When the version after this one was decided: later, whatever the clock says [W3]."""
    return max(now, previous.updated_at + _TICK)


def event_of(kind: EventType, link: Link, *, who: Who, changes: tuple[FieldChange, ...] = ()) -> LinkEvent:
    """The event that makes this version of a link."""
    return LinkEvent(
        type=kind,
        event_id=who.event_id,
        version=link.version,
        at=link.updated_at,
        user_id=who.user_id,
        link=link,
        changes=changes,
        trace_id=who.trace_id,
    )


def json_text(value: str | int | datetime | tuple[str, ...] | None) -> str:
    """A field's value as JSON text; none is empty."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        value = value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return json.dumps(value, ensure_ascii=False)


def time_violations(item: Wish | Link, now: datetime, fields: Container[str] = ALL_FIELDS) -> list[Violation]:
    """What is wrong with the times of a wish, or of a link that is to be; only what is due to one of these fields."""
    found = []
    for field, moment in (("expires_at", item.expires_at), ("starts_at", item.starts_at)):
        if field in fields and moment is not None and moment > now + _YEARS_MAX:
            found.append(Violation(field, "The time is more than 100 years off."))
    if item.expires_at is not None:
        due = next((field for field in ("expires_at", "starts_at") if field in fields), "")
        if "expires_at" in fields and item.expires_at <= now:
            found.append(Violation("expires_at", "The time must lie in the future."))
        elif due and item.starts_at is not None and item.expires_at <= item.starts_at:
            found.append(Violation(due, "A link cannot expire before it starts."))
    return found


def text_violations(item: Wish | Link) -> list[Violation]:
    """What is wrong with status, title and tags."""
    found = []
    if item.redirect_status not in (0, *REDIRECT_STATUSES):
        found.append(Violation("redirect_status", "The status must be 301, 302, 307 or 308."))
    if len(item.title) > TITLE_MAX:
        found.append(Violation("title", f"A title has at most {TITLE_MAX} characters."))
    if len(item.tags) > TAGS_MAX:
        found.append(Violation("tags", f"A link has at most {TAGS_MAX} tags."))
    if any(not tag.strip() or len(tag) > TAG_MAX for tag in item.tags):
        found.append(Violation("tags", f"A tag has 1 to {TAG_MAX} characters, not only spaces."))
    return found
