"""What a runner tells Prometheus, and the one rule by which lag is a time."""

from collections.abc import Collection

from prometheus_client import Counter, Gauge

from chassis.kafka.record import TopicPartition

LAG_SECONDS = Gauge(
    "consumer_lag_seconds",
    "Age of the oldest record of the partition that the group has not finished, by the broker's clock.",
    ("group", "topic", "partition"),
)
LAG_RECORDS = Gauge(
    "consumer_lag_records",
    "Records of the partition that the group has not finished.",
    ("group", "topic", "partition"),
)
RECORDS = Counter(
    "consumer_records",
    "Records by what became of them: done, skipped, retried, buried, released (dependency away), stale.",
    ("group", "topic", "outcome"),
)
DEAD_LETTERS = Counter("dead_letters", "Records given up on, by reason.", ("group", "reason"))
DEAD_LETTERS_LAST_HOUR = Gauge(
    "dead_letters_last_hour",
    "Dead letters of the group within 60 minutes, of all its processes, since it was resumed; above 50 it stops.",
    ("group",),
)
CONSUMER_STOPPED = Gauge(
    "consumer_stopped", "1 while the group has stopped itself, because of too many dead letters.", ("group",)
)
_REASONS = frozenset({"conflict", "too_large", "undecodable", "validation"})
_OTHER_REASON = "exception"  # the handler's: its name is in the letter, and no label of unbounded kinds
COMMIT_FAILURES = Counter("consumer_commit_failures", "Commits that were not stored.", ("group",))
PRODUCER_OPEN = Gauge("kafka_producer_open", "1 while the broker answers this process' producer.", ("client",))
REBALANCES = Counter("consumer_rebalances", "Times that partitions were taken away.", ("group",))


def declare_dead_letters(group: str) -> None:
    """Shows the group's counters at 0 from the start: of a counter that is born at 51 no increase is ever seen."""
    for reason in (*_REASONS, _OTHER_REASON):
        DEAD_LETTERS.labels(group, reason)


def count_dead_letter(group: str, reason: str) -> None:
    """One more record was given up on."""
    DEAD_LETTERS.labels(group, reason if reason in _REASONS else _OTHER_REASON).inc()


class LagMeter:
    """Sets the lag gauges of one group. Lag is 0 when nothing is unfinished and the end has been reached.

    Between hearing of a newer end and reading the records there, their age is unknown; then lag counts from the moment
    that the gap was first seen, so that the first record after a quiet night does not look a night old.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._behind_since: dict[TopicPartition, float] = {}

    def update(
        self, partition: TopicPartition, *, oldest_ms: int | None, position: int | None, end: int | None, now_s: float
    ) -> None:
        """`oldest_ms`: broker time of the oldest unfinished record held; `position`: the next offset to finish."""
        records = 0 if position is None or end is None else max(0, end - position)
        labels = (self._group, partition.topic, str(partition.partition))
        LAG_RECORDS.labels(*labels).set(records)
        LAG_SECONDS.labels(*labels).set(self.seconds(partition, oldest_ms=oldest_ms, records=records, now_s=now_s))

    def seconds(self, partition: TopicPartition, *, oldest_ms: int | None, records: int, now_s: float) -> float:
        """The lag by the rule above; remembers since when the partition is behind. Never negative."""
        if oldest_ms is not None:
            self._behind_since.pop(partition, None)
            return max(0.0, now_s - oldest_ms / 1000)
        if records == 0:
            self._behind_since.pop(partition, None)
            return 0.0
        return max(0.0, now_s - self._behind_since.setdefault(partition, now_s))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """These are no longer ours to report on."""
        for partition in partitions:
            self._behind_since.pop(partition, None)
            labels = (self._group, partition.topic, str(partition.partition))
            for gauge in (LAG_SECONDS, LAG_RECORDS):
                gauge.remove(*labels)
