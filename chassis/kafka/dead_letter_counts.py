"""How many dead letters there are in an hour, and how bad that is. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum

from chassis.kafka.dead_letter_breaker import HOUR_MS, LOOK_BACK_MS, PER_HOUR_MAX, Breaker
from chassis.kafka.letters import Contents, Letter

_NORMAL_MAX, _WARNING_MAX = 5, PER_HOUR_MAX  # letters of a group in an hour; beyond the second the breaker trips [C5]


class Severity(Enum):
    """How bad so many dead letters of a group in an hour are."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


def severity(count: int) -> Severity:
    """How bad so many dead letters of one group in one hour are."""
    if count <= _NORMAL_MAX:
        return Severity.NORMAL
    return Severity.WARNING if count <= _WARNING_MAX else Severity.CRITICAL


def per_hour(letters: Iterable[Letter]) -> Mapping[tuple[int, str], int]:
    """How many letters each group left in each hour, by (hour since 1970, group), the newest hour first."""
    counts = Counter((letter.record.timestamp_ms // HOUR_MS, letter.group) for letter in letters)
    return dict(sorted(counts.items(), key=lambda item: (-item[0][0], item[0][1])))


def last_hour(contents: Contents, group: str, *, now_ms: int) -> int:
    """How many letters count towards the group's breaker now: of the last 60 minutes, since it was last resumed."""
    return _breaker(contents, group, now_ms=now_ms).lately(now_ms=now_ms)


def stopped(contents: Contents, group: str, *, now_ms: int) -> bool:
    """Whether the group has stopped itself and nobody has resumed it, as far as the last 24 hours tell."""
    return _breaker(contents, group, now_ms=now_ms).tripped


def _breaker(contents: Contents, group: str, *, now_ms: int) -> Breaker:
    """The breaker as a process of the group would find it if it started now."""
    breaker = Breaker(group)
    records = [letter.record for letter in contents.letters] + list(contents.resumptions)
    breaker.note([record for record in records if record.timestamp_ms > now_ms - LOOK_BACK_MS])
    return breaker
