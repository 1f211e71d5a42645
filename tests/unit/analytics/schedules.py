"""Random lives of a partition: owners come, are killed or paused and go on late (zombies), stores are slow, gateways
send again. Everything of a life is drawn from one source of chance and runs in virtual time.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from analytics.domain.book import Book
from analytics.domain.clicks import HOUR_MS, Click, RowId, VisitorClass, hour_of
from analytics.handlers.burial import Burial
from analytics.handlers.counting import ClickCounter
from analytics.loops import Flusher
from analytics.ports import CheckpointStore, RowStore
from chassis.kafka.dlq import NoDeadLetters
from chassis.kafka.record import Record, TopicPartition
from tests.fakes.analytics_clicks import SPOOL, T0_MS, click, record
from tests.fakes.analytics_ports import FakeCheckpoints, FakeLog, FakeRowStore
from tests.fakes.kafka_time import VirtualClock, run_virtual

PLACE = TopicPartition("clicks", 0)
STORED_MS = T0_MS + HOUR_MS
_CLASSES = (*[VisitorClass.HUMAN] * 4, VisitorClass.BOT, VisitorClass.PREFETCH)


@dataclass
class Parts:
    """What an owner is made of; a mutant replaces one."""

    book: Callable[[], Book] = lambda: Book(rows_max=4, dirty_max=1000)
    flusher: type[Flusher] = Flusher
    rows: Callable[[FakeRowStore], RowStore] = lambda rows: rows
    table: type[FakeRowStore] = FakeRowStore


@dataclass
class World:
    """A log, its stores, and what must come out."""

    records: Sequence[Record]
    rows: FakeRowStore
    checkpoints: FakeCheckpoints
    log: FakeLog
    expected: Mapping[RowId, Counter[VisitorClass]]
    tops: Counter[str]  # clicks of the account by link
    distinct: Mapping[str, int]  # clicks per spool
    taken: list[int] = field(default_factory=list)


def live(chance: Random, parts: Parts) -> list[str]:
    """One random life; returns what is wrong with the counts in the end, a sentence each."""

    async def pace() -> None:
        await asyncio.sleep(chance.choice((0, 0, 1, 2, 7)))

    world = _world(chance, parts.table(pace), FakeCheckpoints(pace))
    run_virtual(_live(chance, parts, world))
    return _wrong(world)


def _world(chance: Random, rows: FakeRowStore, checkpoints: FakeCheckpoints) -> World:
    records: list[Record] = []
    expected: dict[RowId, Counter[VisitorClass]] = {}
    tops: Counter[str] = Counter()
    recorded: dict[str, list[Click]] = {"1": [], "2": []}
    lost: list[Record] = []
    number = 0
    for _ in range(chance.randint(5, 40)):
        spool = chance.choice(("", *recorded))
        old = recorded.get(spool, [])
        again = chance.randint(1, min(8, len(old))) if old and chance.random() < 0.3 else 0
        # The gateway did not hear that these had arrived: they come again, in a record that begins and ends elsewhere.
        fresh = 0 if again and chance.random() < 0.5 else _length(chance, spool)
        new = [_click(chance, number + place) for place in range(fresh)]
        number += fresh
        sent = [*old[len(old) - again :], *new]
        if spool:
            item = record(len(records), *sent, stored_ms=STORED_MS, spool=spool, first=len(old) - again + 1)
            old += new
        else:
            item = record(len(records), *new, stored_ms=STORED_MS)
        if chance.random() < 0.1:
            lost.append(item)  # it became a dead letter
        else:
            records.append(item)
        if lost and chance.random() < 0.1:
            records.append(_replay(chance.choice(lost), len(records), lost))
        for made in new:
            row_id = RowId(made.key, hour_of(made.at_ms, STORED_MS), 0)
            expected.setdefault(row_id, Counter())[made.visitor_class] += 1
            tops[made.key] += made.visitor_class is not VisitorClass.PREFETCH
    for item in lost:  # each at least once in the end
        records.append(_replay(item, len(records), lost))
    log = FakeLog()
    log.times[0] = {item.offset: item.timestamp_ms for item in records}
    distinct = {SPOOL + spool: len(sent) for spool, sent in recorded.items() if sent}
    return World(records, rows, checkpoints, log, expected, +tops, distinct)


def _replay(item: Record, offset: int, lost: Sequence[Record]) -> Record:
    """A dead letter as an operator sends it, hours later; some are sent more than once."""
    origin = f"0/{1_000_000 + lost.index(item)}/{item.timestamp_ms}".encode()
    headers = (*item.headers, ("replay_for", b"g"), ("replay_of", origin))
    return replace(item, offset=offset, timestamp_ms=STORED_MS + 5 * HOUR_MS, headers=headers)


def _length(chance: Random, spool: str) -> int:
    return chance.choice((1, 1, 2, 5, 9)) if spool else 1


def _click(chance: Random, number: int) -> Click:
    return click(
        chance.choice(("one", "two", "three")),
        at_ms=T0_MS + chance.choice((0, HOUR_MS)),
        visitor=str(number),
        visitor_class=chance.choice(_CLASSES),
        user="alice",
    )


async def _live(chance: Random, parts: Parts, world: World) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(chance.randint(1, 5)):
            # Those before it are zombies from now on, until they end or are killed.
            life = tasks.create_task(_own(chance, parts, world, steps=chance.randint(1, 12)))
            await asyncio.sleep(chance.choice((1, 5, 20, 60)))
            if chance.random() < 0.6:
                life.cancel()
    await _own(chance, parts, world, steps=None)


async def _own(chance: Random, parts: Parts, world: World, *, steps: int | None) -> None:
    """An owner's life: reads on from its checkpoint, flushes now and then. `steps` None: to the end of the log."""
    book = parts.book()
    rows = parts.rows(world.rows)
    checkpoints: CheckpointStore = world.checkpoints
    flusher = parts.flusher(book, rows=rows, checkpoints=checkpoints, rows_per_s_max=25_000)
    counter = ClickCounter(
        book,
        rows=rows,
        checkpoints=checkpoints,
        log=world.log,
        flush=flusher.flush_now,
        burial=Burial(NoDeadLetters(), group="g", clock=VirtualClock()),
        topic=PLACE.topic,
        group="g",
    )
    position = (await counter.assigned([PLACE])).get(PLACE, 0)
    async with asyncio.TaskGroup() as tasks:
        flushing = tasks.create_task(_flush_often(chance, flusher))
        while position < len(world.records) and steps != 0:
            batch = world.records[position : position + chance.randint(1, 9)]
            await counter.handle(batch)
            position += len(batch)
            steps = None if steps is None else steps - 1
            await asyncio.sleep(chance.choice((0, 1, 3)))
        flushing.cancel()
    await counter.revoked([PLACE])


async def _flush_often(chance: Random, flusher: Flusher) -> None:
    while True:
        await asyncio.sleep(chance.choice((1, 2, 5, 11)))
        await flusher.flush(PLACE.partition)


def _wrong(world: World) -> list[str]:
    wrong = []
    for row_id, counts in world.expected.items():
        row = world.rows.links.get(row_id)
        found = (row.human, row.bot, row.prefetches) if row else (0, 0, 0)
        wanted = (counts[VisitorClass.HUMAN], counts[VisitorClass.BOT], counts[VisitorClass.PREFETCH])
        if found != wanted:
            wrong.append(f"{row_id}: {found} instead of {wanted}")
    tops: Counter[str] = Counter()
    for top in world.rows.tops.values():
        tops.update(top.links)
    if tops != world.tops:
        wrong.append(f"top links: {tops} instead of {world.tops}")
    last = world.checkpoints.checkpoints.get((1, 0))
    if last is None or last.offset != len(world.records):
        wrong.append(f"the checkpoint is {last}")
    elif {name: spool.counted for name, spool in last.accounts.spools.items()} != world.distinct:
        wrong.append(f"spools: {last.accounts} instead of {world.distinct}")
    return wrong
