"""A topic that is deleted and created again under a running consumer, from runner to rows."""

import asyncio

import pytest

from analytics.domain.book import Book
from analytics.domain.checkpoints import Checkpoint, LogView
from analytics.domain.sequences import Spool
from analytics.handlers.burial import Burial
from analytics.handlers.counting import ClickCounter
from analytics.loops import Flusher
from chassis.clock import uuid7
from chassis.kafka.checkpointed import CheckpointedRunner
from chassis.kafka.dlq import NoDeadLetters
from chassis.kafka.record import TopicPartition
from tests.fakes.analytics_clicks import CLICKS, batch_of, click
from tests.fakes.analytics_ports import FakeCheckpoints, FakeLog, FakeRowStore
from tests.fakes.kafka import FakeBroker, FakeSource
from tests.fakes.kafka_time import START, VirtualClock, run_virtual

TOPIC, GROUP = "clicks", "g"
PLACE = TopicPartition(TOPIC, 0)
HEADERS = (("ce_type", CLICKS.encode()),)


class BrokersLog(FakeLog):
    """A Log that looks at the fake broker."""

    def __init__(self, broker: FakeBroker) -> None:
        super().__init__()
        self._broker = broker

    async def around(self, checkpoint: Checkpoint) -> LogView:
        self.times[0] = {record.offset: record.timestamp_ms for record in self._broker.logs[PLACE]}
        return await super().around(checkpoint)


@pytest.mark.rule("A8", "S4")
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

        def append(first: int, last: int) -> None:
            """A record of the spool with these sequences."""
            at_ms = int(START.timestamp() * 1000)
            clicks = [click("k", at_ms=at_ms)] * (last - first + 1)
            broker.append(TOPIC, b"k", batch_of(clicks, spool_id, first).SerializeToString(), HEADERS, 0)

        spool_id = uuid7(START)
        for first in range(1, 30, 3):
            append(first, first + 2)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runner.run(stop))
            await clock.sleep(5)
            broker.logs[PLACE].clear()
            append(26, 32)  # a gateway sends again what it was not told to have arrived, and goes on
            append(33, 34)
            source.seek(PLACE, 0)  # as the client library does when its offset is out of range
            await clock.sleep(30)
            stop.set()

        assert [row.human for row in rows.links.values()] == [34]
        assert checkpoints.epochs == {0: 2}
        assert checkpoints.checkpoints[2, 0].offset == 2
        assert checkpoints.checkpoints[2, 0].accounts.spools[spool_id] == Spool(34, 34, 5)

    run_virtual(scenario())
