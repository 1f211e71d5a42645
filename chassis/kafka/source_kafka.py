"""The source on a real broker: aiokafka's consumer with explicit commits, static membership and short sessions [C3]."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord
from aiokafka import TopicPartition as ClientPartition
from aiokafka.errors import IllegalStateError, KafkaError

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.kafka.abandon import has_died, stop_consumer
from chassis.kafka.commits import commit
from chassis.kafka.record import Position, Record, TopicPartition
from chassis.kafka.source import Listener

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 3.0
_SEEK_TIMEOUT_S = 5.0
_COMMIT_TIMEOUT_S = 5.0
_POLL_SLACK_S = 0.1
_JOIN_TIMEOUT_S = 60.0  # twice the rebalance timeout: a member that is not in by then joins anew
_BROKEN = (KafkaError, OSError, AssertionError)  # the library asserts what a rebalance can make untrue


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who reads what. `client_id` is `host:port` of the process' gRPC server where owners are looked up by it [A7];
    `instance_id` is the seat of this process in the group (static membership [C3]), the same after a restart and
    different for each process; None joins as a new member each time.
    """

    bootstrap: str
    group: str
    topics: Sequence[str]
    client_id: str
    instance_id: str | None = None


class KafkaSource:
    """A `Source`. `assign_all`: take every partition of the topics, as no member of the group [B2]."""

    def __init__(self, subscription: Subscription, *, clock: Clock, assign_all: bool = False) -> None:
        self._subscription = subscription
        self._clock = clock
        self._assign_all = assign_all
        self._consumer: AIOKafkaConsumer | None = None
        self._joining_since: float | None = None

    async def open(self, listener: Listener) -> None:
        """Connect, and begin to join; `assigned` follows when the group has settled. Raises Unavailable."""
        consumer = self._make()
        opened = False
        try:
            with _translated("open"):
                async with asyncio.timeout(_OPEN_TIMEOUT_S):
                    await consumer.start()
                    partitions = await self._all_partitions(consumer) if self._assign_all else []
            self._consumer = consumer
            opened = True
        finally:
            if not opened:
                await stop_consumer(consumer, timeout_s=_CLOSE_TIMEOUT_S)
        if self._assign_all:
            consumer.assign([ClientPartition(*partition) for partition in partitions])
            await listener.assigned(partitions)
        else:
            self._joining_since = self._clock.monotonic()
            consumer.subscribe(topics=list(self._subscription.topics), listener=_Rebalance(self, listener))

    async def close(self) -> None:
        """Leave. A static member keeps its seat until the session is over, so that a restart takes it back."""
        consumer, self._consumer = self._consumer, None
        self._joining_since = None
        if consumer is not None:
            await stop_consumer(consumer, timeout_s=_CLOSE_TIMEOUT_S)

    async def poll(self, *, timeout_s: float, records_max: int) -> Sequence[Record]:
        """The next records. Raises Unavailable when the consumer has broken or cannot get into its group."""
        consumer = self._opened()
        if has_died(consumer):
            raise Unavailable("unavailable", "the consumer has died")
        if self._joining_since is not None and self._clock.monotonic() - self._joining_since > _JOIN_TIMEOUT_S:
            raise Unavailable("unavailable", "the group did not let this consumer in")
        found: dict[ClientPartition, list[ConsumerRecord]] = {}
        with _translated("poll"), contextlib.suppress(TimeoutError):
            # The library's own timeout does not count while a rebalance runs.
            async with asyncio.timeout(timeout_s + _POLL_SLACK_S):
                found = await consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=records_max)
        return [record_of(record) for records in found.values() for record in records]

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop returning records of these."""
        if held := self._held(partitions):
            self._opened().pause(*held)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Go on with these."""
        if held := self._held(partitions):
            self._opened().resume(*held)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at this offset."""
        if held := self._held([partition]):
            self._opened().seek(held[0], offset)

    async def seek_to_beginning(self, partition: TopicPartition) -> None:
        """Go on at the oldest record there is. Raises Unavailable."""
        if held := self._held([partition]):
            with _translated("seek"):
                async with asyncio.timeout(_SEEK_TIMEOUT_S):
                    await self._opened().seek_to_beginning(held[0])

    async def commit(self, position: Position) -> None:
        """Store these next offsets. Raises Unavailable when that failed or may have failed."""
        held = {ClientPartition(*tp): offset for tp, offset in position.items() if self._held([tp])}
        if held:
            with _translated("commit"):
                async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                    await commit(self._opened(), held)

    def end_offset(self, partition: TopicPartition) -> int | None:
        """The end as the last fetch told it."""
        held = self._held([partition])
        end: int | None = self._opened().highwater(held[0]) if held else None
        return end

    def position(self, partition: TopicPartition) -> int | None:
        """Where the consumer stands; unknown until the committed offset has been read."""
        held = self._held([partition])
        if not held:
            return None
        # The public `position()` waits, without a limit, for what is not known yet.
        state = self._opened()._subscription.subscription.assignment.state_value(held[0])  # noqa: SLF001 (see above)
        known: int | None = state.position if state.has_valid_position else None
        return known

    def _make(self) -> AIOKafkaConsumer:
        wanted = self._subscription
        return AIOKafkaConsumer(
            bootstrap_servers=wanted.bootstrap,
            client_id=wanted.client_id,
            group_id=wanted.group,
            group_instance_id=None if self._assign_all else wanted.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=3_000,
            heartbeat_interval_ms=500,
            rebalance_timeout_ms=30_000,
            max_poll_interval_ms=300_000,
            max_poll_records=None,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
            fetch_max_wait_ms=150,  # a resumed partition waits for the fetch that is out
        )

    async def _all_partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        """Every partition of the topics; waits (inside the caller's deadline) until they exist."""
        found: list[TopicPartition] = []
        for topic in self._subscription.topics:
            consumer._client.add_topic(topic)  # noqa: SLF001 (the public way needs a subscription)
            while not (numbers := consumer.partitions_for_topic(topic)):
                await consumer._client.force_metadata_update()  # noqa: SLF001 (as above)
                await self._clock.sleep(0.1)
            found += [TopicPartition(topic, number) for number in sorted(numbers)]
        return found

    def _opened(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise Unavailable("unavailable", "the source is not open")
        return self._consumer

    def _held(self, partitions: Collection[TopicPartition]) -> list[ClientPartition]:
        assigned = self._consumer.assignment() if self._consumer is not None else ()
        return [held for tp in partitions if (held := ClientPartition(*tp)) in assigned]


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Passes ownership on. The library logs and forgets what a listener raises: ours ends the process by itself."""

    def __init__(self, source: KafkaSource, listener: Listener) -> None:
        self._source = source
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Collection[ClientPartition]) -> None:
        self._source._joining_since = self._source._clock.monotonic()  # noqa: SLF001 (the other half of KafkaSource)
        if revoked:
            await self._listener.revoked([TopicPartition(*tp) for tp in revoked])

    async def on_partitions_assigned(self, assigned: Collection[ClientPartition]) -> None:
        self._source._joining_since = None  # noqa: SLF001 (as above)
        await self._listener.assigned(sorted(TopicPartition(*tp) for tp in assigned))


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (*_BROKEN, IllegalStateError, TimeoutError) as error:
        raise Unavailable("unavailable", f"{what}: {type(error).__name__}") from error


def record_of(record: ConsumerRecord) -> Record:
    """The library's record as ours."""
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key or b"",
        value=record.value or b"",
        headers=tuple((name, value or b"") for name, value in record.headers),
    )
