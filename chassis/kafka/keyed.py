"""The keyed runner (writer, webhook, cache refresher): many keys in flight, each key in order [C1-C4]."""

import asyncio
import logging
from collections.abc import Callable, Collection

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from chassis.kafka.codec import REPLAY_FOR
from chassis.kafka.dlq import DeadLetters
from chassis.kafka.gate import Gate
from chassis.kafka.metrics import COMMIT_FAILURES, REBALANCES, RECORDS, LagMeter
from chassis.kafka.record import Record, TopicPartition
from chassis.kafka.source import Source
from chassis.kafka.watchdog import Watchdog
from chassis.kafka.window import Window
from chassis.kafka.work import Handler, KeyedPolicy, Work

__all__ = ["Handler", "KeyedPolicy", "KeyedRunner", "SetReady"]

logger = logging.getLogger(__name__)

SetReady = Callable[[bool, str], None]
_REOPEN = Backoff(first_s=0.2, cap_s=3.0)
_POLL_TIMEOUT_MIN_S = 0.01


class KeyedRunner:
    """A component: consumes until `stop`, then drains, commits and leaves.

    Promises: per key the handler sees records in order and never two at a time; an offset is committed only when every
    record before it is finished, which for a dead letter means acknowledged by the broker; no result of work begun
    before a rebalance is applied after it; a record in retry (at once, 5 s, 30 s) holds back its own key only.
    """

    def __init__(
        self,
        *,
        source: Source,
        dead_letters: DeadLetters,
        handler: Handler,
        policy: KeyedPolicy,
        clock: Clock,
        group: str,
        set_ready: SetReady,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._source = source
        self._dead_letters = dead_letters
        self._policy = policy
        self._clock = clock
        self._group = group
        self._set_ready = set_ready
        self._window = Window(
            records_max=policy.window_records_max,
            span_max=policy.window_span_max,
            bytes_max=policy.bytes_max,
            retry_delays_s=policy.retry_delays_s,
        )
        self._gate = Gate(batch_max=policy.batch_records_max, probe_interval_s=policy.probe_interval_s)
        self._work = Work(
            window=self._window,
            gate=self._gate,
            handler=handler,
            dead_letters=dead_letters,
            policy=policy,
            clock=clock,
            group=group,
        )
        self._watchdog = watchdog or Watchdog(silence_max_s=policy.silence_max_s)
        self._lag = LagMeter(group)
        self._committing = asyncio.Lock()
        self._paused: frozenset[TopicPartition] = frozenset()
        self._joined = False
        self._told: str | None = None
        self._next_round = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set. Survives a broker that is away; raises only on a bug, ConsumerStuckError too."""
        with self._watchdog.guarded():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watchdog.run(stop, self._tell), name=f"{self._group} watchdog")
                tasks.create_task(self._look_at_breaker(stop), name=f"{self._group} breaker")
                for number in range(self._policy.lanes):
                    tasks.create_task(self._work.lane(), name=f"{self._group} lane {number}")
                await self._consume_until(stop)
                self._work.close()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """From the source: these are ours."""
        self._window.assign(partitions)
        self._joined = True

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """From the source: drain, commit what is finished, forget. Ends within drain_s, 1 s and the commit's limit."""
        REBALANCES.labels(self._group).inc()
        self._joined = False
        try:
            await self._work.hold()
            await self._commit()
        finally:
            self._window.revoke(partitions)
            self._lag.forget(partitions)
            self._paused -= set(partitions)
            self._work.let_go()

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

    async def _consume(self, stop: asyncio.Event) -> None:
        try:
            await self._dead_letters.open()
            await self._source.open(self)
            await self._poll(stop)
        finally:
            await self._leave()

    async def _poll(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._watchdog.polled()
            records = await self._source.poll(
                timeout_s=self._poll_timeout_s(), records_max=self._policy.poll_records_max
            )
            for record in records:
                self._take_in(record)
            self._work.wake()
            # A poll that finds records in the buffer does not yield, and lanes and heartbeats must run.
            await asyncio.sleep(0)
            self._unblock()
            self._set_pauses()
            now = self._clock.monotonic()
            if now >= self._next_round:
                self._next_round = now + self._policy.commit_interval_s
                await self._commit()
                self._measure()
                self._forget_what_was_away()
                self._tell(self._why_not_ready())

    def _take_in(self, record: Record) -> None:
        if self._window.begun_anew(record):
            logger.warning("%s/%d was created anew, its records are read from there", record.topic, record.partition)
            self._window.assign([record.topic_partition])
        wanted_by = record.header(REPLAY_FOR)
        skip = wanted_by is not None and wanted_by != self._group
        if self._window.add(record, skip=skip) and skip:
            RECORDS.labels(self._group, record.topic, "skipped").inc()

    def _poll_timeout_s(self) -> float:
        """Until the next retry or probe is due, within bounds: polling goes on also when nothing comes.

        What is due already was handed out or may not be now (the breaker, a hold): no reason to poll the faster.
        """
        now = self._clock.monotonic()
        due = [moment - now for moment in (self._window.next_due(), self._gate.next_probe()) if moment is not None]
        wait_s = min((wait_s for wait_s in due if wait_s > 0), default=self._policy.poll_timeout_s)
        return min(self._policy.poll_timeout_s, max(_POLL_TIMEOUT_MIN_S, wait_s))

    def _unblock(self) -> None:
        for record in self._window.unblock():
            logger.warning("%s/%d: a record that fails holds up everything", record.topic, record.partition)

    def _forget_what_was_away(self) -> None:
        """With nothing in hand and nothing to read there is nothing to ask with: the next record will tell."""
        ours = self._window.partitions
        if self._gate.away and self._window.empty and all(self._has_all(tp) for tp in ours):
            self._gate.forget()

    def _has_all(self, partition: TopicPartition) -> bool:
        position, end = self._source.position(partition), self._source.end_offset(partition)
        return position is not None and position == end

    def _set_pauses(self) -> None:
        # With nothing in hand there is nothing to probe with: after a rebalance an empty window must read on.
        closed = (self._gate.away and not self._window.empty) or self._dead_letters.tripped()
        wanted = frozenset(self._window.partitions) if closed else self._window.full()
        self._source.pause(wanted - self._paused)
        self._source.resume(self._paused - wanted)
        self._paused = wanted

    async def _commit(self) -> None:
        """Commit the low watermarks. A commit that fails means redelivery, not harm: the next one repairs it."""
        try:
            async with asyncio.timeout(self._policy.commit_timeout_s), self._committing:
                position = self._window.progress()
                if position:
                    await self._source.commit(position)
                    self._window.committed(position)
        except (Unavailable, TimeoutError) as error:
            COMMIT_FAILURES.labels(self._group).inc()
            logger.info("commit failed: %s", str(error) or type(error).__name__)

    def _measure(self) -> None:
        now_s = self._clock.now().timestamp()
        for partition in self._window.partitions:
            oldest, watermark = self._window.oldest(partition), self._window.watermark(partition)
            self._lag.update(
                partition,
                oldest_ms=None if oldest is None else oldest.timestamp_ms,
                position=self._source.position(partition) if watermark is None else watermark,
                end=self._source.end_offset(partition),
                now_s=now_s,
            )

    async def _look_at_breaker(self, stop: asyncio.Event) -> None:
        """Now and then: what the group's other processes have buried counts here, and a person may say go."""
        while not await sleep_until_stop(stop, self._policy.breaker_look_s):
            tripped = self._dead_letters.tripped()
            try:
                resumed = await self._dead_letters.resumed()
            except Unavailable as error:
                logger.info("cannot look into the dead letters: %s", error)
                continue
            if resumed and tripped:
                logger.warning("a person has resumed group %s", self._group)

    def _why_not_ready(self) -> str:
        if self._dead_letters.tripped():
            return f"too many dead letters in an hour; look at them, then: linkmesh dlq resume {self._group}"
        if self._gate.away:
            return "a dependency is away"
        return "" if self._joined else "joining the group"

    def _tell(self, why_not: str) -> None:
        """Ready, if there is nothing to say against it."""
        if why_not != self._told:
            self._told = why_not
            self._set_ready(not why_not, why_not)

    async def _leave(self) -> None:
        """Drain, commit, close the source; also after it has broken, when the commit will fail."""
        await self.revoked(list(self._window.partitions))
        await self._source.close()
