"""The body of a webhook: {type, timestamp, data}, where data is the Event of docs/CONTRACTS.md."""

import json

from contracts.link import LinkEvent
from contracts.link_json import link_json, time_text


def body_of(event: LinkEvent, *, public_url: str) -> str:
    """The JSON text of an event. It is made once and kept, so that every attempt sends the same bytes."""
    payload = {"type": event.type.value, "timestamp": time_text(event.at), "data": _event(event, public_url)}
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
        "at": time_text(event.at),
        "changes": changes,
        "link": link_json(event.link, public_url=public_url, at=event.at),
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
