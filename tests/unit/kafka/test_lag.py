"""Lag as a time."""

from chassis.kafka.metrics import LagMeter
from chassis.kafka.record import TopicPartition

TP = TopicPartition("t", 0)


def test_age_of_the_oldest_unfinished_record() -> None:
    """A record in hand is as old as the broker says; a clock that runs behind the broker's never makes lag negative."""
    meter = LagMeter("g")

    assert meter.seconds(TP, oldest_ms=90_000, records=5, now_s=100.0) == 10.0
    assert meter.seconds(TP, oldest_ms=200_000, records=5, now_s=100.0) == 0.0


def test_nothing_to_do_is_no_lag() -> None:
    """Caught up is 0, however old the last record is."""
    assert LagMeter("g").seconds(TP, oldest_ms=None, records=0, now_s=1e9) == 0.0


def test_unread_records_count_from_when_they_were_first_heard_of() -> None:
    """Records not yet read are of unknown age: lag begins at 0 and grows; catching up forgets it."""
    meter = LagMeter("g")

    seconds = [meter.seconds(TP, oldest_ms=None, records=records, now_s=now) for now, records in
               ((100.0, 3), (107.0, 4), (108.0, 0), (200.0, 1), (201.0, 1))]  # fmt: skip

    assert seconds == [0.0, 7.0, 0.0, 0.0, 1.0]
