"""A library that repeats itself in an outage does not flood the log."""

import logging

import pytest

from chassis.logs import OncePerInterval


def line(name: str, number: int = 1) -> logging.LogRecord:
    """A log record of a logger, from a line of its source."""
    return logging.LogRecord(name, logging.ERROR, "/lib/client.py", number, "cannot connect", (), None)


@pytest.mark.rule("P8")
def test_the_same_line_once_per_interval() -> None:
    """An hour of 20 lines a second becomes one line per interval; other places and other libraries are untouched."""
    now = 0.0
    once = OncePerInterval("aiokafka", interval_s=10.0, monotonic=lambda: now)
    written = 0
    for tick in range(3600 * 20):
        now = tick / 20
        written += once.filter(line("aiokafka.conn"))

    assert written == 360
    assert once.filter(line("aiokafka.conn", 2))
    assert all(once.filter(line(name)) for name in ("chassis.kafka", "aiokafkaesque", "chassis.kafka"))
