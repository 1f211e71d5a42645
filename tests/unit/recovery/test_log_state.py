"""R8: what is asked of Kafka, and in which order, while relay and writer go on."""

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from chassis.kafka.admin import Admin
from chassis.kafka.record import TopicPartition
from chassis.kafka.stretch import Bounds, LogStretches
from contracts.topics import LINKS_EVENTS
from link_service.adapters.recent_events_kafka import KafkaReading
from link_service.domain.recovery import Remembered, first_offsets

PARTITIONS = [TopicPartition(LINKS_EVENTS.name, number) for number in range(LINKS_EVENTS.partitions)]


class BusyBroker:
    """Both sides of Kafka that are asked: with each question an event arrives, and the writer has committed it."""

    def __init__(self) -> None:
        self.end = 1000

    def _more(self) -> int:
        self.end += 1
        return self.end

    async def bounds(self, _topic: str) -> Mapping[TopicPartition, Bounds]:
        """What each partition has."""
        end = self._more()
        return {tp: Bounds(0, end) for tp in PARTITIONS}

    async def committed(self, _group: str) -> Mapping[TopicPartition, int]:
        """Where the writer is: at the end."""
        end = self._more()
        return dict.fromkeys(PARTITIONS, end)


@pytest.mark.rule("R8")
def test_a_writer_that_is_at_work_is_never_ahead_of_the_log() -> None:
    """R8: a position behind the end means a log that was created again, and all of it would be read: for hours."""

    async def main() -> None:
        broker = BusyBroker()
        reading = KafkaReading(cast("LogStretches", broker), cast("Admin", broker))

        state = await reading.state(recent=False)

        assert set(first_offsets(state, Remembered({}, {})).values()) == {1001}

    asyncio.run(main())
