"""How long a request to warm the cache is worth anything [C6]."""

from datetime import UTC, datetime, timedelta

_WORTH = timedelta(seconds=60)  # who asked has come again or gone; warming what nobody wants takes room from the rest


def is_stale(requested_ms: int, now: datetime) -> bool:
    """Whether a request that the broker stored at `requested_ms` (since 1970, its clock) is older than 60 s."""
    return now - datetime.fromtimestamp(requested_ms / 1000, UTC) > _WORTH
