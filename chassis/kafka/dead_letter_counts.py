"""How many dead letters there are in an hour, and how bad that is. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum

from chassis.kafka.dlq import HOUR_MS, RESUME
from chassis.kafka.letters import Contents, Letter

_NORMAL_MAX, _WARNING_MAX = 5, 50  # letters of a group in an hour; beyond the second the breaker trips [C5]


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
    resumed = [r.timestamp_ms for r in contents.resumptions if r.header(RESUME) == group]
    since_ms = max([now_ms - HOUR_MS, *resumed])
    return sum(letter.group == group and letter.record.timestamp_ms > since_ms for letter in contents.letters)
