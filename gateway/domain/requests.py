"""What the gateway itself decides about a request of the API: preconditions and ranges of time."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

RANGE_MAX = timedelta(days=92)
RANGE_DEFAULT = timedelta(days=30)
_ETAG = re.compile(r'"([1-9][0-9]{0,17})"')


class Stale:
    """The precondition can never hold: a tag that is weak or that we never give out (RFC 9110 section 13.1.1)."""


STALE = Stale()


def expected_version(if_match: str) -> int | Stale:
    """The version that If-Match demands; 0: none in particular.

    Raises:
        ValueError: more than one tag, which we do not offer.
    """
    value = if_match.strip()
    if value in ("", "*"):
        return 0
    if "," in value:
        raise ValueError("If-Match takes one tag, or *.")
    match = _ETAG.fullmatch(value)
    return int(match[1]) if match else STALE


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A range of time, the end excluded."""

    start: datetime
    end: datetime


def stats_range(start: datetime | None, end: datetime | None, now: datetime) -> TimeRange:
    """The range of a question for statistics: until now, thirty days, unless told otherwise.

    Raises:
        ValueError: it ends before it starts, is longer than 92 days, or starts before the year 1.
    """
    until = end or now
    try:
        since = start or until - RANGE_DEFAULT
    except OverflowError:
        raise ValueError("The range must start after the year 1.") from None
    if since >= until:
        raise ValueError("The range must start before it ends.")
    if until - since > RANGE_MAX:
        raise ValueError(f"The range is at most {RANGE_MAX.days} days.")
    return TimeRange(since, until)
