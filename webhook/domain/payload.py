"""The body of a webhook: {type, timestamp, data}, where data is the Event of docs/CONTRACTS.md."""

import json

from contracts.link import LinkEvent
from contracts.link_json import event_json, time_text


def body_of(event: LinkEvent, *, public_url: str) -> str:
    """The JSON text of an event. It is made once and kept, so that every attempt sends the same bytes."""
    data = event_json(event, public_url=public_url)
    payload = {"type": event.type.value, "timestamp": time_text(event.at), "data": data}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
