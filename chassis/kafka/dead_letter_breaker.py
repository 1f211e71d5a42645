"""The breaker of a group [C5]: more than so many dead letters within an hour, by whichever of its processes, stop it
until a person resumes it. Pure: told what stands in the dead letter topics, again and again if need be.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chassis.kafka.record import Record

HOUR_MS = 3_600_000
LOOK_BACK_MS = 24 * HOUR_MS  # how far back a process that starts looks for what stopped its group
PER_HOUR_MAX = 50
RESUME = "dlq_resume"  # the header by which a person lets a group go on


class Origin(NamedTuple):
    """Which record a letter is about. Buried twice, by a process that died between burial and commit, it is one."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Breaker:
    """Counts one group's letters since its newest resumption. All times are the broker's: whose clock is wrong here
    stops, or goes on, like everybody else.
    """

    def __init__(self, group: str, *, per_hour_max: int = PER_HOUR_MAX) -> None:
        self._group = group
        self._per_hour_max = per_hour_max
        self._buried_at_ms: dict[Origin, int] = {}
        self._resumed_at_ms = -1
        self._tripped = False

    @property
    def tripped(self) -> bool:
        """Whether the group must stop. Stays so until a newer resumption is noted."""
        return self._tripped

    def note(self, records: Sequence[Record]) -> bool:
        """Take in records of the dead letter topics, also strangers and repeats; whether one resumes the group anew."""
        resumed_at_ms = max(
            (record.timestamp_ms for record in records if record.header(RESUME) == self._group), default=-1
        )
        resumed = resumed_at_ms > self._resumed_at_ms
        if resumed:
            self._resumed_at_ms, self._tripped = resumed_at_ms, False
        for record in records:
            if (origin := _origin(record, self._group)) is not None:
                self._buried_at_ms[origin] = min(
                    record.timestamp_ms, self._buried_at_ms.get(origin, record.timestamp_ms)
                )
        self._judge()
        return resumed

    def lately(self, *, now_ms: int) -> int:
        """How many letters count now: of the last 60 minutes, since the group was resumed."""
        since_ms = max(now_ms - HOUR_MS, self._resumed_at_ms)
        return sum(at_ms > since_ms for at_ms in self._buried_at_ms.values())

    def _judge(self) -> None:
        newest_ms = max(self._buried_at_ms.values(), default=0)
        oldest_ms = max(newest_ms - LOOK_BACK_MS, self._resumed_at_ms)
        self._buried_at_ms = {origin: at_ms for origin, at_ms in self._buried_at_ms.items() if at_ms > oldest_ms}
        times = sorted(self._buried_at_ms.values())
        first_and_last = zip(times, times[self._per_hour_max :], strict=False)  # of each run of one more than allowed
        self._tripped = self._tripped or any(last - first < HOUR_MS for first, last in first_and_last)


def _origin(record: Record, group: str) -> Origin | None:
    """Which record a letter of this group is about; None for anything else."""
    if record.header("dlq_group") != group:
        return None
    numbers = [record.header(name) or "" for name in ("dlq_partition", "dlq_offset", "dlq_timestamp_ms")]
    try:
        partition, offset, timestamp_ms = (int(number) for number in numbers)
    except ValueError:
        return None
    return Origin(record.header("dlq_topic") or "", partition, offset, timestamp_ms)
