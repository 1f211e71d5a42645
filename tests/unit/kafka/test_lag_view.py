"""Lag as a person is shown it."""

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from chassis.kafka.admin import Lag
from chassis.kafka.lag import Level, PartitionLag, gauges_of, lag_in_seconds, level_of, merged, rows_of, worst
from chassis.kafka.record import TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.mark.parametrize(
    ("seconds", "level"),
    [
        (0.0, Level.HEALTHY),
        (0.099, Level.HEALTHY),
        (0.1, Level.BUSY),
        (5.0, Level.BUSY),
        (5.1, Level.WARNING),
        (30.0, Level.WARNING),
        (30.1, Level.CRITICAL),
    ],
)
def test_levels(seconds: float, level: Level) -> None:
    """Below 0.1 s healthy, above 5 s warning, above 30 s critical, as the alerts have it."""
    assert level_of(seconds) is level


@pytest.mark.rule("C4")
@pytest.mark.parametrize(
    ("committed_s", "told", "expected"),
    [
        (40.0, None, 40.0),  # nobody tells: dead, and the broker's word counts
        (55.0, 0.0, 0.0),  # counted, but not stored for another few seconds
        (0.0, 3.0, 0.0),  # committed since it was told
        (8.0, 7.0, 7.0),
        (91.0, 0.0, 91.0),  # a gauge that nobody sets any more
    ],
)
def test_a_living_consumer_is_believed_within_bounds(committed_s: float, told: float | None, expected: float) -> None:
    """Its own gauge counts, unless nobody answers or the committed position says that it cannot be true."""
    assert lag_in_seconds(Lag(5, 10, 5, committed_s), told) == expected


def test_gauges_are_read_from_what_processes_expose() -> None:
    """Exactly what the client library writes; of two that tell of a partition the greater lag counts."""
    registry = CollectorRegistry()
    gauge = Gauge("consumer_lag_seconds", "x", ("group", "topic", "partition"), registry=registry)
    gauge.labels("g", "t", "1").set(2.5)
    gauge.labels("g", "t", "0").set(0)
    Gauge("consumer_lag_records", "x", ("group", "topic", "partition"), registry=registry).labels("g", "t", "1").set(9)

    told = gauges_of(generate_latest(registry).decode())

    assert told == {("g", T1): 2.5, ("g", T0): 0.0}
    assert merged([told, {("g", T0): 4.0, ("g", T1): 1.0}]) == {("g", T1): 2.5, ("g", T0): 4.0}


def test_rows_and_the_worst_of_each_group() -> None:
    """One row for each partition, with its owner where there is one; by seconds first, then by records."""
    rows = rows_of("g", {T1: Lag(None, 7, 7, 12.3456), T0: Lag(3, 3, 0, 0.0)}, {T0: "host:1"}, {("other", T1): 0.0})
    other = PartitionLag("h", "t", 0, 3, 0.0, 0, 3, "")

    assert [(r.partition, r.records, r.seconds, r.owner, r.level) for r in rows] == [
        (0, 0, 0.0, "host:1", Level.HEALTHY),
        (1, 7, 12.346, "", Level.WARNING),
    ]
    assert worst([*rows, other]) == {"g": rows[1], "h": other}
