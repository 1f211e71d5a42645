"""Which event a change of a link makes, or why there is none: updates and restores. Deletes stand in links.py."""

from dataclasses import dataclass, replace
from datetime import datetime

from contracts.link import EventType, FieldChange, Link, LinkEvent, LinkState
from contracts.reasons import Reason
from link_service.domain.destinations import DestinationPolicy, Refused, normal_form
from link_service.domain.links import (
    ALL_FIELDS,
    Already,
    NotTheirs,
    Stale,
    Violation,
    Violations,
    Who,
    event_of,
    json_text,
    text_violations,
    time_after,
    time_violations,
)

_STATUS_DEFAULT = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What somebody wants changed: these `fields` become what is here, the others stay. `redirect_status` 0: 302."""

    fields: frozenset[str]
    long_url: str = ""
    title: str = ""
    tags: tuple[str, ...] = ()
    expires_at: datetime | None = None
    starts_at: datetime | None = None
    redirect_status: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """The link is deleted; only a restore can change it."""


Refusal = Already | Stale | NotTheirs | Gone | Violations  # all that a change may be answered with instead of an event


def update(
    current: Link, revision: Revision, *, who: Who, if_version: int, now: datetime, policy: DestinationPolicy
) -> LinkEvent | Refusal:
    """The event that changes fields of a link, or why there is none. `if_version` 0: whatever the version is.

    Only what changes is checked: a link that has expired, or whose destination would be refused today, may still get
    another title. What is asked to become as it is makes no event.
    """
    if current.user_id != who.user_id:
        return NotTheirs()
    if current.state is LinkState.DELETED:
        return Gone()
    if if_version not in (0, current.version):
        return Stale(current.version)
    wanted = _revised(current, revision, policy)
    if isinstance(wanted, Violations):
        return wanted
    changed = tuple(field for field in ALL_FIELDS if getattr(wanted, field) != getattr(current, field))
    if not changed:
        return Already(current)
    found = [
        item for item in (*time_violations(wanted, now, changed), *text_violations(wanted)) if item.field in changed
    ]
    if found:
        return Violations(Reason.INVALID_FIELD, tuple(found))
    link = replace(wanted, version=current.version + 1, event_id=who.event_id, updated_at=time_after(current, now))
    changes = tuple(
        FieldChange(field, json_text(getattr(current, field)), json_text(getattr(link, field))) for field in changed
    )
    return event_of(EventType.UPDATED, link, who=who, changes=changes)


def restore(current: Link, *, who: Who, if_version: int, now: datetime) -> LinkEvent | Refusal:
    """The event that brings a deleted link back, or why there is none. `if_version` 0: whatever the version is.

    A link that is not deleted stays as it is, whichever version was seen: a restore asks for a state, not a step.
    """
    if current.user_id != who.user_id:
        return NotTheirs()
    if current.state is not LinkState.DELETED:
        return Already(current)
    if if_version not in (0, current.version):
        return Stale(current.version)
    link = replace(
        current,
        state=current.restores_to,
        version=current.version + 1,
        event_id=who.event_id,
        updated_at=time_after(current, now),
        deleted_at=None,
        restores_to=LinkState.ACTIVE,
    )
    changes = (
        FieldChange("state", json_text(current.state.value), json_text(link.state.value)),
        FieldChange("deleted_at", json_text(current.deleted_at), json_text(None)),
    )
    return event_of(EventType.RESTORED, link, who=who, changes=changes)


def _revised(current: Link, revision: Revision, policy: DestinationPolicy) -> Link | Violations:
    """The link with the fields that are meant, in normal form, neither checked nor a version of its own yet."""
    fields = revision.fields
    long_url = normal_form(revision.long_url, policy) if "long_url" in fields else current.long_url
    if isinstance(long_url, Refused):
        return Violations(Reason.INVALID_LONG_URL, (Violation("long_url", long_url.sentence),))
    status = revision.redirect_status or _STATUS_DEFAULT
    return replace(
        current,
        long_url=long_url,
        title=revision.title if "title" in fields else current.title,
        tags=tuple(dict.fromkeys(revision.tags)) if "tags" in fields else current.tags,
        expires_at=revision.expires_at if "expires_at" in fields else current.expires_at,
        starts_at=revision.starts_at if "starts_at" in fields else current.starts_at,
        redirect_status=status if "redirect_status" in fields else current.redirect_status,
    )
