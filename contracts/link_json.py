"""Links and their events as JSON: the same objects in the answers of the REST interface and in webhooks."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from contracts.link import FieldChange, Link, LinkEvent

Json = dict[str, object]


def link_json(link: Link, *, public_url: str, at: datetime) -> Json:
    """A link as its owner sees it at that moment. `public_url`: the address of the deployment's own domain."""
    base = f"https://{link.domain}" if link.domain else public_url.rstrip("/")
    return {
        "short_code": link.short_code,
        "short_url": f"{base}/{link.short_code}",
        "long_url": link.long_url,
        "user_id": link.user_id,
        "is_custom": link.is_custom,
        "version": link.version,
        "state": link.state_at(at).value,
        "created_at": time_text(link.created_at),
        "updated_at": time_text(link.updated_at),
        "deleted_at": optional_time_text(link.deleted_at),
        "expires_at": optional_time_text(link.expires_at),
        "starts_at": optional_time_text(link.starts_at),
        "redirect_status": link.redirect_status,
        "title": link.title,
        "tags": list(link.tags),
    }


def event_json(event: LinkEvent, *, public_url: str) -> Json:
    """An event, with the link as it was when the event made it."""
    return {
        "event_id": event.event_id,
        "type": event.type.value,
        "version": event.version,
        "short_code": event.link.short_code,
        "user_id": event.user_id,
        "at": time_text(event.at),
        "changes": changes_json(event.changes),
        "link": link_json(event.link, public_url=public_url, at=event.at),
    }


def changes_json(changes: Iterable[FieldChange]) -> Json:
    """The fields that changed, with their values before and after."""
    return {
        change.field: {"old": _json_value(change.old_value), "new": _json_value(change.new_value)} for change in changes
    }


@lru_cache(maxsize=64)  # links of one crowd have one time
def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def optional_time_text(moment: datetime | None) -> str | None:
    """The same of a time that may be missing."""
    return None if moment is None else time_text(moment)


def _json_value(text: str) -> object:
    """A changed field's value, which the event keeps as JSON text; empty is none. What is no JSON is told as it is."""
    if not text:
        return None
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value
