"""How far groups are behind, for a person: the broker's view, corrected by what living consumers say. Pure.

The broker knows what a group has *committed*, also of a group whose processes are dead. But a consumer commits each
second, and one that keeps its position with its own state (C4) only when it has stored that state, up to a minute
later: by that measure a busy group that is well looks seconds behind. Hence the consumer's own gauge counts where a
process answers, unless what is committed is so much older that the gauge cannot be true.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from chassis.kafka.admin import Lag
from chassis.kafka.record import TopicPartition

HEALTHY_BELOW_S, WARNING_ABOVE_S, CRITICAL_ABOVE_S = 0.1, 5.0, 30.0
_GAUGE_TRUSTED_S = 90.0  # the longest time between two stored states (60 s), and half of it again
_SAMPLE = re.compile(r"^consumer_lag_seconds\{([^}]*)\} (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Level(Enum):
    """What a lag means, as in docs/OPERATIONS.md."""

    HEALTHY = "healthy"
    BUSY = "busy"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """A group on a partition. `seconds`: age of the oldest record not finished; `records`: not committed."""

    group: str
    topic: str
    partition: int
    records: int
    seconds: float
    committed: int | None
    end: int
    owner: str  # client id of the process that reads it; empty: none, or one that reads without the group (audit)

    @property
    def level(self) -> Level:
        """What that means."""
        return level_of(self.seconds)


Gauges = Mapping[tuple[str, TopicPartition], float]


def level_of(seconds: float) -> Level:
    """What a lag of so many seconds means."""
    if seconds > CRITICAL_ABOVE_S:
        return Level.CRITICAL
    if seconds > WARNING_ABOVE_S:
        return Level.WARNING
    return Level.HEALTHY if seconds < HEALTHY_BELOW_S else Level.BUSY


def gauges_of(exposition: str) -> Gauges:
    """The lag in seconds that a process tells in its /metrics, by group and partition."""
    found: dict[tuple[str, TopicPartition], float] = {}
    for labels, value in _SAMPLE.findall(exposition):
        named = dict(_LABEL.findall(labels))
        place = TopicPartition(named.get("topic", ""), int(named.get("partition", -1)))
        found[named.get("group", ""), place] = float(value)
    return found


def merged(gauges: Iterable[Gauges]) -> Gauges:
    """Of several processes that tell of the same partition (one may just have lost it) the greatest lag."""
    found: dict[tuple[str, TopicPartition], float] = {}
    for told in gauges:
        for place, seconds in told.items():
            found[place] = max(seconds, found.get(place, 0.0))
    return found


def lag_in_seconds(lag: Lag, told: float | None) -> float:
    """The lag that counts: the consumer's word `told` where there is one that can be true, else the broker's."""
    if told is None or lag.seconds > told + _GAUGE_TRUSTED_S:
        return lag.seconds
    return min(lag.seconds, told)


def rows_of(
    group: str, lags: Mapping[TopicPartition, Lag], owners: Mapping[TopicPartition, str], gauges: Gauges
) -> list[PartitionLag]:
    """The group's partitions, in order."""
    return [
        PartitionLag(
            group=group,
            topic=place.topic,
            partition=place.partition,
            records=lag.records,
            seconds=round(lag_in_seconds(lag, gauges.get((group, place))), 3),
            committed=lag.committed,
            end=lag.end,
            owner=owners.get(place, ""),
        )
        for place, lag in sorted(lags.items())
    ]


def worst(rows: Sequence[PartitionLag]) -> Mapping[str, PartitionLag]:
    """Of each group the partition that is furthest behind."""
    found: dict[str, PartitionLag] = {}
    for row in rows:
        if row.group not in found or (row.seconds, row.records) > (found[row.group].seconds, found[row.group].records):
            found[row.group] = row
    return found
