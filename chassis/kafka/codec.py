"""The envelope of every record: CloudEvents 1.0 in binary mode, plus the W3C trace parent.

Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2 (attributes are headers with the prefix `ce_`).
"""

from datetime import UTC, datetime
from functools import lru_cache

from chassis.kafka.record import Headers

CONTENT_TYPE = b"application/protobuf"
_SPEC_VERSION, _CONTENT_TYPE = ("ce_specversion", b"1.0"), ("content-type", CONTENT_TYPE)
TRACEPARENT = "traceparent"
REPLAY_FOR = "replay_for"  # a replayed dead letter names the one group that failed on it
REPLAY_OF = "replay_of"  # where its record stood first: partition/offset/broker time in ms [A9]
REPLAY_LETTER = "replay_letter"  # the letter it was made of: partition/offset in the dead letter topic


def event_headers(
    *, event_id: str, event_type: str, source: str, time: datetime, subject: str, traceparent: str | None
) -> Headers:
    """The headers of an event: `ce_*`, `content-type`, and `traceparent` where there is a trace.

    `time` must be aware; it is written in UTC, RFC 3339, microseconds. `event_type` is the full protobuf name.
    Raises ValueError for a naive time.
    """
    if time.tzinfo is None:
        raise ValueError("an event's time needs a time zone")
    headers: Headers = (
        _SPEC_VERSION,
        ("ce_id", event_id.encode()),
        ("ce_type", event_type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", _time_text(time)),
        ("ce_subject", subject.encode()),
        _CONTENT_TYPE,
    )
    return headers if traceparent is None else (*headers, (TRACEPARENT, traceparent.encode()))


@lru_cache(maxsize=64)  # events of one crowd have one time
def _time_text(time: datetime) -> bytes:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def with_traceparent(headers: Headers, traceparent: str) -> Headers:
    """The same headers with exactly one `traceparent`, this one, at the end."""
    kept = tuple(item for item in headers if item[0] != TRACEPARENT)
    return (*kept, (TRACEPARENT, traceparent.encode()))
