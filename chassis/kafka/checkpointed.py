"""The checkpointed runner (analytics, audit): the handler keeps the position with its own state [C4, A3, A4, B2]."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from chassis.kafka.checkpointed_handler import CheckpointedHandler, CheckpointedPolicy
from chassis.kafka.metrics import COMMIT_FAILURES, REBALANCES, RECORDS, LagMeter
from chassis.kafka.record import Position, Record, TopicPartition
from chassis.kafka.source import Source
from chassis.kafka.tracing import processing
from chassis.kafka.watchdog import Watchdog
from chassis.kafka.work import DEPENDENCY_AWAY

__all__ = ["CheckpointedHandler", "CheckpointedPolicy", "CheckpointedRunner"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
_REOPEN = Backoff(first_s=0.2, cap_s=3.0)
_AWAY_POLL_TIMEOUT_S = 0.05


class CheckpointedRunner:
    """A component: polls always, hands records over in order, pauses while the handler's dependency is away."""

    def __init__(
        self,
        *,
        source: Source,
        handler: CheckpointedHandler,
        clock: Clock,
        group: str,
        set_ready: Callable[[bool, str], None],
        policy: CheckpointedPolicy | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._source = source
        self._handler = handler
        self._clock = clock
        self._group = group
        self._set_ready = set_ready
        self._policy = policy or CheckpointedPolicy()
        self._watchdog = watchdog or Watchdog(silence_max_s=self._policy.silence_max_s)
        self._lag = LagMeter(group)
        self._turn = asyncio.Lock()  # handler calls never overlap
        self._call: asyncio.Timeout | None = None
        self._to_load: set[TopicPartition] = set()
        self._known: set[TopicPartition] = set()  # to the handler
        self._next: dict[TopicPartition, int] = {}  # loaded and positioned: the next offset to take in
        self._newest_ms: dict[TopicPartition, int] = {}  # the newest time of a record taken in since it was loaded
        self._backlog: list[Record] = []  # polled, not yet handled
        self._paused: frozenset[TopicPartition] = frozenset()
        self._retry_at: float | None = None  # None: nothing is away
        self._next_round = 0.0
        self._joined = False
        self._told: str | None = None
        self._failure: Exception | None = None  # of a `revoked` that ran in the source's task

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then `revoked` for all that is held, commit, leave. Raises on a bug only."""
        try:
            with self._watchdog.guarded():
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watchdog.run(stop, self._tell), name=f"{self._group} watchdog")
                    await self._consume_until(stop)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # the first to fail has ended the other

    async def _consume_until(self, stop: asyncio.Event) -> None:
        attempt = 0
        while not stop.is_set():
            self._watchdog.polled()
            try:
                await self._consume(stop)
            except Unavailable as error:
                self._tell(f"the broker is away: {error.message}")
                await sleep_until_stop(stop, _REOPEN.delay_s(attempt))
                attempt += 1

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """From the source: these are ours. They stay paused until the handler has loaded their state."""
        self._joined = True
        self._to_load |= set(partitions)
        self._source.pause(partitions)
        self._paused |= set(partitions)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """From the source: let the handler flush, commit what it has stored, forget."""
        REBALANCES.labels(self._group).inc()
        self._joined = False
        gone = set(partitions)
        self._to_load -= gone
        try:
            await self._flush(gone)
        except DEPENDENCY_AWAY as error:
            logger.warning("state of revoked partitions was not flushed: %s", type(error).__name__)
        except Exception as error:
            self._failure = error  # the source would swallow it
            raise
        finally:
            for partition in gone:
                self._next.pop(partition, None)
                self._newest_ms.pop(partition, None)
            self._backlog = [record for record in self._backlog if record.topic_partition not in gone]
            self._paused -= gone
            self._lag.forget(gone)

    async def _consume(self, stop: asyncio.Event) -> None:
        try:
            await self._source.open(self)
            await self._poll(stop)
            await self.revoked({*self._known, *self._next, *self._to_load})
        except Unavailable:
            await self.revoked({*self._known, *self._next, *self._to_load})
            raise
        finally:
            self._next.clear()
            self._known.clear()
            self._to_load.clear()
            self._backlog.clear()
            await self._source.close()

    async def _poll(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._watchdog.polled()
            if self._failure is not None:
                raise self._failure
            away = self._retry_at is not None
            self._set_pauses(frozenset({*self._next, *self._to_load}) if away else frozenset(self._to_load))
            timeout_s = _AWAY_POLL_TIMEOUT_S if self._to_load or away else self._policy.poll_timeout_s
            for record in await self._source.poll(timeout_s=timeout_s, records_max=self._policy.poll_records_max):
                self._take_in(record)
            await asyncio.sleep(0)  # neither such a poll nor the handler need yield; heartbeats must run
            now = self._clock.monotonic()
            if self._retry_at is None or now >= self._retry_at:
                await self._advance(now)
            self._tell(self._why_not_ready())

    async def _advance(self, now: float) -> None:
        """Load what is new, hand over what was read, now and then checkpoint; each may find that the store is away."""
        try:
            if self._to_load:
                await self._load()
            if self._backlog:
                await self._deliver()
            if now >= self._next_round:
                self._next_round = now + self._policy.checkpoint_interval_s
                self._measure()
                await self._commit(await self._exclusive(self._handler.checkpoint, self._policy.handler_timeout_s))
        except DEPENDENCY_AWAY as error:
            if self._retry_at is None:
                logger.warning("a dependency is away, pausing: %s", type(error).__name__)
            self._retry_at = self._clock.monotonic() + self._policy.probe_interval_s
            self._measure()
        else:
            self._retry_at = None

    def _take_in(self, record: Record) -> None:
        """Only of loaded partitions, and none twice.

        Raises Unavailable for an offset that was taken in before, at a time that is news: the topic was created anew.
        The handler then loads its state again, and may see that it is of another log [A8].
        """
        expected = self._next.get(record.topic_partition)
        newest_ms = self._newest_ms.get(record.topic_partition, record.timestamp_ms)
        if expected is not None and record.offset < expected and record.timestamp_ms > newest_ms:
            raise Unavailable("unavailable", f"{record.topic}/{record.partition} was created anew")
        if expected is None or record.offset < expected:
            RECORDS.labels(self._group, record.topic, "stale").inc()
            return
        self._backlog.append(record)
        self._next[record.topic_partition] = record.offset + 1
        self._newest_ms[record.topic_partition] = max(newest_ms, record.timestamp_ms)

    async def _load(self) -> None:
        wanted = frozenset(self._to_load)

        async def load() -> Position:
            position = await self._handler.assigned(wanted)
            self._known |= wanted
            return position

        position = await self._exclusive(load, self._policy.handler_timeout_s)
        for partition in sorted(wanted & self._to_load):  # some may have been revoked since
            offset = position.get(partition)
            if offset is None:
                await self._source.seek_to_beginning(partition)
            else:
                self._source.seek(partition, offset)
            if partition in self._to_load:
                self._to_load.discard(partition)
                self._next[partition] = offset or 0

    async def _deliver(self) -> None:
        async def handle() -> None:
            # Read here, inside the turn: a revocation that came first has taken its records out.
            records = list(self._backlog)
            if not records:
                return
            with processing(records, self._group):
                await self._handler.handle(records)
            for record in records:
                RECORDS.labels(self._group, record.topic, "done").inc()
            del self._backlog[: len(records)]

        await self._exclusive(handle, self._policy.handler_timeout_s)

    async def _flush(self, gone: set[TopicPartition]) -> None:
        if self._turn.locked():
            await self._wait_or_cut()

        async def flush() -> Position:
            known = gone & self._known
            self._known -= known
            return await self._handler.revoked(known) if known else {}

        position = await self._exclusive(flush, self._policy.drain_s)
        await self._commit({tp: offset for tp, offset in position.items() if tp in gone})

    async def _wait_or_cut(self) -> None:
        """Wait for the call that runs; past drain_s end it: its records are handed over again, here or elsewhere."""
        try:
            async with asyncio.timeout(self._policy.drain_s), self._turn:
                return
        except TimeoutError:
            call = self._call
            if call is not None and not call.expired():
                call.reschedule(asyncio.get_running_loop().time())

    async def _exclusive(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        async with self._turn, asyncio.timeout(timeout_s) as self._call:
            return await call()

    async def _commit(self, position: Position) -> None:
        """For lag tools only; a failure is counted, and harms nothing."""
        if not position:
            return
        try:
            async with asyncio.timeout(self._policy.commit_timeout_s):
                await self._source.commit(position)
        except (Unavailable, TimeoutError) as error:
            COMMIT_FAILURES.labels(self._group).inc()
            logger.info("commit failed: %s", str(error) or type(error).__name__)

    def _set_pauses(self, wanted: frozenset[TopicPartition]) -> None:
        self._source.pause(wanted - self._paused)
        self._source.resume(self._paused - wanted)
        self._paused = wanted

    def _measure(self) -> None:
        now_s = self._clock.now().timestamp()
        oldest: dict[TopicPartition, Record] = {}
        for record in self._backlog:
            oldest.setdefault(record.topic_partition, record)
        for partition, following in self._next.items():
            waiting = oldest.get(partition)
            self._lag.update(
                partition,
                oldest_ms=None if waiting is None else waiting.timestamp_ms,
                position=following if waiting is None else waiting.offset,
                end=self._source.end_offset(partition),
                now_s=now_s,
            )

    def _why_not_ready(self) -> str:
        if self._retry_at is not None:
            return "a dependency is away"
        if self._to_load:
            return "loading state"
        return "" if self._joined else "joining the group"

    def _tell(self, why_not: str) -> None:
        if why_not != self._told:
            self._told = why_not
            self._set_ready(not why_not, why_not)
