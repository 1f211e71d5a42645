"""What a flush may say it has stored, while clicks go on coming."""

import asyncio
from collections.abc import Sequence

import pytest

from analytics.domain.book import Book, Write
from analytics.domain.checkpoints import Checkpoint
from analytics.loops import Flusher
from tests.fakes.analytics_clicks import arrival, click
from tests.fakes.analytics_ports import FakeCheckpoints, FakeRowStore
from tests.fakes.kafka_time import VirtualClock, run_virtual


class BusyRows(FakeRowStore):
    """While the first batch is written, a click on another link comes in."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book

    async def store(self, writes: Sequence[Write]) -> Sequence[bool]:
        """Takes them as always."""
        late = [arrival(1, click("late"))]
        self.book.admit(self.book.missing(late), {})
        self.book.fold(late)
        return await super().store(writes)


@pytest.mark.rule("A3", "A4")
def test_a_checkpoint_leaves_out_what_came_during_its_flush() -> None:
    """A3: the row of a click that came later is not written yet: a checkpoint that passes over it would lose it."""
    book = Book(rows_max=100, dirty_max=100)
    rows, checkpoints = BusyRows(book), FakeCheckpoints()
    flusher = Flusher(book, rows=rows, checkpoints=checkpoints, rows_per_s_max=25_000)
    book.assign(Checkpoint(0))
    first = [arrival(0, click("early"))]
    book.admit(book.missing(first), {})
    book.fold(first)

    asyncio.run(flusher.flush(0))

    assert {row_id.key for row_id in rows.links} == {"early"}
    assert checkpoints.checkpoints[1, 0].offset == 1
    assert book.saved_offset(0) == 1


@pytest.mark.rule("A1", "A4")
def test_a_row_that_the_table_has_is_gone_on_from() -> None:
    """A1: a new owner reads a row before it adds to it; one that began at zero would write over what was counted."""

    async def scenario() -> None:
        rows, checkpoints = FakeRowStore(), FakeCheckpoints()
        for offset in range(3):  # three owners, one click each
            book = Book(rows_max=100, dirty_max=100)
            book.assign(checkpoints.checkpoints.get((1, 0), Checkpoint(0)))
            arrivals = [arrival(offset, click("abc"))]
            missing = book.missing(arrivals)
            assert len(missing) == 1
            book.admit(missing, await rows.load(missing))
            book.fold(arrivals)
            await Flusher(book, rows=rows, checkpoints=checkpoints, rows_per_s_max=25_000).flush(0)

        (row,) = rows.links.values()
        assert row.human == 3

    asyncio.run(scenario())


@pytest.mark.rule("A6")
def test_rows_are_written_at_the_rate_that_is_allowed() -> None:
    """A flush takes as long as its rows allow, but not while somebody waits for it."""

    async def scenario() -> None:
        clock = VirtualClock()
        took: list[float] = []
        for hurried in (False, True):
            book = Book(rows_max=1000, dirty_max=1000)
            book.assign(Checkpoint(0))
            arrivals = [arrival(number, click(f"k{number}")) for number in range(1000)]
            book.admit(book.missing(arrivals), {})
            book.fold(arrivals)
            flusher = Flusher(book, rows=FakeRowStore(), checkpoints=FakeCheckpoints(), rows_per_s_max=500)
            began = clock.monotonic()
            await (flusher.flush_now(0) if hurried else flusher.flush(0))
            took.append(clock.monotonic() - began)
            assert not book.dirty

        assert 1.8 <= took[0] <= 2.2
        assert took[1] < 0.1

    run_virtual(scenario())
