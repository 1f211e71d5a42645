"""A dead letter counts as buried when the broker has said so, and not before."""

from collections.abc import Sequence

import pytest

from chassis.errors import Unavailable
from chassis.kafka.dlq import DeadLetter, TopicDeadLetters
from chassis.kafka.record import Record, Rejected
from tests.fakes.kafka import FakeBroker, FakeSender
from tests.fakes.kafka_time import VirtualClock, run_virtual

LETTER = DeadLetter(Record("t", 0, 1, 0, b"key", b"value"), Rejected("conflict"), attempts=1, first_failed_at_ms=0)


@pytest.mark.rule("C1", "C5")
@pytest.mark.parametrize("stored", [0, 1], ids=["lost on its way", "only the answer lost"])
def test_a_letter_whose_sending_fails_is_an_error_though_the_topic_can_be_read(stored: int) -> None:
    """The runner commits past a record whose letter was sent: what may be lost must be sent again."""

    async def scenario() -> None:
        broker = FakeBroker(VirtualClock(), {"t-dlq": 1})
        sender = FakeSender(broker)

        async def history() -> Sequence[Record]:
            return broker.records("t-dlq")

        letters = TopicDeadLetters(sender=sender, history=history, clock=broker.clock, group="g")
        await letters.open()
        sender.acknowledges, sender.stores = 0, stored

        with pytest.raises(Unavailable):
            await letters.send(LETTER)

        await letters.send(LETTER)
        assert len(broker.records("t-dlq")) == 1 + stored

    run_virtual(scenario())
