"""A topic that is deleted and created again under a running consumer, from runner to rows."""

import asyncio

import pytest

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint, LogView
from analytics.handlers.burial import Burial
from analytics.handlers.counting import ClickCounter
from analytics.loops import Flusher
from chassis.kafka.checkpointed import CheckpointedRunner
from chassis.kafka.dlq import NoDeadLetters
from chassis.kafka.record import TopicPartition
from contracts.topics import ANALYTICS_EVENTS
from tests.fakes.analytics_clicks import click, message_of
from tests.fakes.analytics_ports import FakeCheckpoints, FakeLog, FakeRowStore
from tests.fakes.kafka import FakeBroker, FakeSource
from tests.fakes.kafka_time import START, VirtualClock, run_virtual

TOPIC, GROUP = "clicks", "g"
PLACE = TopicPartition(TOPIC, 0)
HEADERS = (("ce_type", ANALYTICS_EVENTS.event_types[0].encode()),)


class BrokersLog(FakeLog):
    """A Log that looks at the fake broker."""

    def __init__(self, broker: FakeBroker) -> None:
        super().__init__()
        self._broker = broker

    async def around(self, checkpoint: Checkpoint) -> LogView:
        self.times[0] = {record.offset: record.timestamp_ms for record in self._broker.logs[PLACE]}
        return await super().around(checkpoint)


@pytest.mark.rule("A8")
def test_clicks_of_both_logs_are_counted() -> None:
    """The consumer is set back to an offset it had, at a later time: state is loaded anew, and a new epoch begins."""

    async def scenario() -> None:
        clock, stop = VirtualClock(), asyncio.Event()
        broker = FakeBroker(clock, {TOPIC: 1})
        source = FakeSource(broker, group=GROUP, topics=[TOPIC])
        book, rows, checkpoints = Book(rows_max=99, dirty_max=99), FakeRowStore(), FakeCheckpoints()
        flusher = Flusher(book, rows=rows, checkpoints=checkpoints, rows_per_s_max=25_000)
        counter = ClickCounter(
            book,
            rows=rows,
            checkpoints=checkpoints,
            log=BrokersLog(broker),
            flush=flusher.flush_now,
            burial=Burial(NoDeadLetters(), group=GROUP, clock=clock),
            topic=TOPIC,
            group=GROUP,
        )
        runner = CheckpointedRunner(
            source=source, handler=counter, clock=clock, group=GROUP, set_ready=lambda *_args, **_named: None
        )

        def append(count: int) -> None:
            at_ms = int(START.timestamp() * 1000)
            for _ in range(count):
                broker.append(TOPIC, b"k", message_of(click("k", at_ms=at_ms)).SerializeToString(), HEADERS, 0)

        append(30)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runner.run(stop))
            await clock.sleep(5)
            broker.logs[PLACE].clear()
            append(4)
            source.seek(PLACE, 0)  # as the client library does when its offset is out of range
            await clock.sleep(30)
            stop.set()

        assert [row.human for row in rows.links.values()] == [34]
        assert checkpoints.epochs == {0: 2}
        assert checkpoints.checkpoints[2, 0].offset == 4

    run_virtual(scenario())
