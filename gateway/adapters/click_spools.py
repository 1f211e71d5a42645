"""All spools of this process: the one that each partition's clicks are recorded in, and those still to be sent.

Recording and sending only touch memory; what touches the disk is done ahead of need, by the stock's thread.
"""

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from chassis.clock import Clock, uuid7
from gateway.adapters.spool import Room, Spool
from gateway.adapters.spool_files import Folder
from gateway.adapters.spool_metrics import DROPPED, OUTDATED, show
from gateway.adapters.spool_recovery import DAMAGED, Remains, read_segment, take_over
from gateway.adapters.spool_stock import Allocate, Stock
from gateway.domain.spool_format import TRACED, TRACEPARENT_BYTES
from gateway.domain.spools import Shipment, SpoolTotals, is_outdated
from shortener.events.v1.click_events_pb2 import LinksAccessed

_ROTATE_S = 86_400.0  # so that the counter may forget old spools [S1, S5]
_LOOK_S = 10.0  # between looks for what dead processes left
_TELL_S = 10.0  # between totals of a spool that is recorded into [S8]
_TICK_S = 1.0
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
_RECORD_CLICKS_MAX = 500  # of one Kafka record; the counter folds it without a pause
_RECORD_BYTES_MAX = 200_000
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """Where and how much. `partitions`: of the topic, as known at this start [S3]."""

    root: Path
    partitions: int
    bytes_max: int
    segment_bytes: int
    allocate: Allocate = Folder.allocate


class ClickSpools:
    """A ClickSpool, and where recorded clicks go. An async context manager, and the component that keeps it going."""

    def __init__(self, options: SpoolOptions, *, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._now_ms: Callable[[], int] = lambda: int(clock.now().timestamp() * 1000)
        self._live: list[Spool] = []
        self._queues: dict[int, deque[Spool]] = {number: deque() for number in range(options.partitions)}
        self._remains: list[Remains] = []
        self._news, self._closed, self._left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle = False  # the shipper waits for news
        self._rotate_at = self._look_at = self._read_at = 0.0
        self._recorded = self._shown = 0  # clicks in all, and those that metrics know of

    async def __aenter__(self) -> Self:
        """Makes this start's folder and its first segments.

        Raises:
            OSError: the root is not there, or cannot be written to.
        """
        options = self._options
        folder = await asyncio.to_thread(Folder.create, options.root, uuid7(self._clock.now()))
        self._stock = Stock(
            folder,
            bytes_max=options.bytes_max,
            segment_bytes=options.segment_bytes,
            allocate=options.allocate,
            clock=self._clock,
        )
        await self._begin_spools()
        show(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        show(None)
        for segment in (segment for spool in self._spools() for segment in spool.segments):
            if segment.map is not None:
                segment.map.close()
        for remains in self._remains:
            self._stock.later(remains.folder.leave)
        await self._stock.leave()

    # Recording

    def append(self, partition: int, kept: bytes, traceparent: str | None) -> bool:
        """Records a click: its piece of a `LinksAccessed`. False: there was no room, or it came too late [S6]."""
        flags = 0
        if traceparent is not None and len(traceparent) == TRACEPARENT_BYTES and traceparent.isascii():
            kept, flags = traceparent.encode() + kept, TRACED
        if not self._live[partition].append(kept, flags):
            DROPPED.inc()
            return False
        self._recorded += 1
        if self._idle:
            self._idle = False
            self._news.set()
        return True

    def close(self) -> None:
        """Nothing is recorded any more: the last request has been answered."""
        for spool in self._live:
            spool.seal()
        self._closed.set()
        self._news.set()

    # Sending

    async def closed(self) -> None:
        """Returns when nothing is recorded any more."""
        await self._closed.wait()

    @property
    def empty(self) -> bool:
        """Whether everything is with the broker, and nothing more comes."""
        return self._closed.is_set() and not any(self._queues.values())

    async def wait(self) -> None:
        """Returns when there may be something to send; at the latest after a second or so."""
        self._idle = True
        await self._news.wait()
        self._idle = False
        self._news.clear()

    def shipments(self) -> Sequence[Shipment]:
        """What is to be sent now: of each partition one batch, of its oldest spool that is not done with [S3]."""
        now = self._clock.monotonic()
        found: list[Shipment] = []
        for partition, queue in self._queues.items():
            self._pass_over(queue)
            if not queue:
                continue
            spool = queue[0]
            if spool.unread is not None:
                if now >= self._read_at:
                    self._stock.work.set()
                continue
            content = spool.next_runs(clicks_max=_RECORD_CLICKS_MAX, bytes_max=_RECORD_BYTES_MAX)
            found += [Shipment(spool.spool_id, partition, run) for run in content]
            totals = spool.totals()
            if totals != spool.told and (totals.closed or (not spool.sealed and now >= spool.told_at + _TELL_S)):
                found.append(Shipment(spool.spool_id, partition, totals))
        return found

    def acknowledge(self, shipment: Shipment) -> None:
        """The broker has this."""
        spool = next(spool for spool in self._queues[shipment.partition] if spool.spool_id == shipment.spool_id)
        match shipment.content:
            case SpoolTotals() as totals:
                spool.told, spool.told_at = totals, self._clock.monotonic()
            case run:
                self._stock.release(spool.acknowledge(run))

    def finish(self) -> None:
        """Nothing is sent any more."""
        self._left.set()
        self._stock.work.set()

    # Keeping

    async def run(self, stop: asyncio.Event) -> None:  # noqa: ARG002 (it goes on as long as there is something to send)
        """Makes segments ready, reads what dead processes left, and rotates, until nothing is sent any more."""
        while not self._left.is_set():
            self._stock.work.clear()
            await self._stock.refill()
            await self._read()
            now = self._clock.monotonic()
            if not self._closed.is_set():
                if now >= self._look_at:
                    self._look_at = now + _LOOK_S
                    await self._take_over()
                if now >= self._rotate_at:
                    await self._begin_spools()
            self._news.set()
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._stock.work.wait()
            except TimeoutError:
                continue

    async def _begin_spools(self) -> None:
        """New spools for all partitions; those there were are done with once they are sent [S1]."""
        files = await self._stock.make_small(self._options.partitions)
        if self._closed.is_set():
            self._stock.put_back(files)
            return
        now = self._clock.monotonic()
        self._rotate_at = now + _ROTATE_S
        for old in self._live:
            old.seal()
        room = Room(self._stock.ask, self._stock.take, self._stock.waive)
        self._live = []
        for partition, file in enumerate(files):
            spool = Spool(uuid7(self._clock.now()), partition, room=room, now_ms=self._now_ms)
            spool.told_at = now
            if file is not None:
                spool.begin(file)
            self._live.append(spool)
            self._queues[partition].append(spool)

    async def _take_over(self) -> None:
        """What dead processes left is sent before what we record ourselves; their bytes count as ours."""
        try:
            found = await self._stock.aside(lambda: take_over(self._options.root, self._now_ms))
        except OSError as error:
            logger.error("what dead processes left cannot be looked for: %s", error)  # noqa: TRY400 (says it all)
            return
        for remains in found:
            logger.info("%d spools of a process that is gone are taken over", len(remains.spools))
            self._remains.append(remains)
            self._stock.budget.take(remains.bytes, anyway=True)
            for spool in remains.spools:
                queue = self._queues.setdefault(spool.partition, deque())
                later = (n for n, other in enumerate(queue) if not other.sealed or other.spool_id > spool.spool_id)
                queue.insert(next(later, len(queue)), spool)

    async def _read(self) -> None:
        """Reads the segments of dead processes that are next to be sent; what stops that and may pass is waited for."""
        if self._clock.monotonic() < self._read_at:
            return
        for queue in list(self._queues.values()):
            while queue and (segment := queue[0].unread) is not None:
                spool = queue[0]
                try:
                    reading = await self._stock.aside(partial(read_segment, segment, spool.acknowledged))
                except OSError as error:
                    if error.errno in _PASSING:
                        logger.warning("a segment cannot be read now: %s", error)
                        self._read_at = self._clock.monotonic() + _LOOK_S
                        return
                    DAMAGED.inc()
                    logger.error("a segment cannot be read: %s", error)  # noqa: TRY400 (the sentence says it all)
                    self._stock.release([spool.give_up()])
                    continue
                if spool.unread is not segment:  # thrown away meanwhile
                    reading.map.close()
                    continue
                spool.read(reading)
                self._stock.release(spool.pass_over())

    def _pass_over(self, queue: "deque[Spool]") -> None:
        """Leaves spools that are done with, or too old to be sent [S5]."""
        while queue:
            spool = queue[0]
            self._stock.release(spool.pass_over())
            if spool.sealed and is_outdated(spool.spool_id, self._now_ms()):
                OUTDATED.inc(spool.pending)
                logger.error("%d clicks were not sent within seven days, and are lost", spool.pending)
            elif not spool.finished or not spool.told_all:
                return
            queue.popleft()
            self._remove(spool)

    def _remove(self, spool: Spool) -> None:
        self._stock.release(list(spool.segments))
        spool.segments.clear()
        for remains in [remains for remains in self._remains if spool in remains.spools]:
            remains.spools.remove(spool)
            if not remains.spools:
                self._remains.remove(remains)
                self._stock.later(remains.folder.leave)

    # What is shown

    def recorded(self) -> int:
        """Clicks recorded since this was asked last."""
        fresh, self._shown = self._recorded - self._shown, self._recorded
        return fresh

    def clicks(self) -> int:
        """Clicks that the broker has not acknowledged."""
        return sum(spool.pending for spool in self._spools())

    def age_s(self) -> float:
        """Age of the oldest of them."""
        oldest = [_at_ms(spool.oldest) for spool in self._spools() if spool.pending and spool.segments]
        return max(0.0, (self._now_ms() - min(oldest)) / 1000) if oldest else 0.0

    def bytes(self) -> int:
        """Bytes of all segments on disk."""
        return self._stock.budget.used

    def segments(self) -> int:
        """How many segments the spools have."""
        return sum(len(spool.segments) for spool in self._spools())

    def _spools(self) -> Iterator[Spool]:
        return (spool for queue in self._queues.values() for spool in queue)


def _at_ms(oldest: "bytes | int") -> int:
    """When a click was made: its message, or about when."""
    return oldest if isinstance(oldest, int) else LinksAccessed.FromString(oldest).clicks[0].at.ToMilliseconds()
