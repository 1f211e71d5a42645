"""The body of a webhook: {type, timestamp, data}, where data is the Event of docs/CONTRACTS.md."""

import json
from datetime import UTC, datetime

from contracts.link import Link, LinkEvent


def body_of(event: LinkEvent, *, public_url: str) -> str:
    """The JSON text of an event. It is made once and kept, so that every attempt sends the same bytes."""
    payload = {"type": event.type.value, "timestamp": _time(event.at), "data": _event(event, public_url)}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _event(event: LinkEvent, public_url: str) -> dict[str, object]:
    changes = {
        change.field: {"old": _json_value(change.old_value), "new": _json_value(change.new_value)}
        for change in event.changes
    }
    return {
        "event_id": event.event_id,
        "type": event.type.value,
        "version": event.version,
        "short_code": event.link.short_code,
        "user_id": event.user_id,
        "at": _time(event.at),
        "changes": changes,
        "link": _link(event.link, event.at, public_url),
    }


def _link(link: Link, at: datetime, public_url: str) -> dict[str, object]:
    base = f"https://{link.domain}" if link.domain else public_url.rstrip("/")
    return {
        "short_code": link.short_code,
        "short_url": f"{base}/{link.short_code}",
        "long_url": link.long_url,
        "user_id": link.user_id,
        "is_custom": link.is_custom,
        "version": link.version,
        "state": link.state_at(at).value,
        "created_at": _time(link.created_at),
        "updated_at": _time(link.updated_at),
        "deleted_at": _time(link.deleted_at),
        "expires_at": _time(link.expires_at),
        "starts_at": _time(link.starts_at),
        "redirect_status": link.redirect_status,
        "title": link.title,
        "tags": list(link.tags),
    }


def _json_value(text: str) -> object:
    """A changed field's value, which the event keeps as JSON text; empty is none. What is no JSON is told as it is."""
    if not text:
        return None
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, written as the REST API writes it, so that a link reads the same in both."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
