"""Replaying the topic into the tables: the writer's own handling of every record, as no member of any group.

For tables that were lost or came back from a backup. It may run beside the writer and may be repeated: event rows are
the arbiter [W1], and projections only move forward [W2].
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

from chassis.backoff import Backoff
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.kafka.keyed import Handler
from chassis.kafka.record import Outcome, Record, Rejected
from contracts.link import LinkKey
from writer.domain import waves
from writer.ports import EventTopic, LinkTable, Span, StoredEvent

_READ_MAX = 1000  # records of one read
_BATCH_MAX = 100  # as many as the writer takes
_PARTITIONS_MAX = 4  # at a time
_KEYS_MAX = 100  # of one look at the table
_PATIENCE_S = 60.0  # that a store may be away
_AGAIN = Backoff(first_s=0.1, cap_s=5.0)

Answer = TypeVar("Answer")
Advance = Callable[[int], None]
Decode = Callable[[Record], StoredEvent | Rejected]


class Reach(NamedTuple):
    """Which versions of a link the topic has."""

    oldest: int
    newest: int


@dataclass(slots=True)
class Replayed:
    """What a replay came to. `rejected`: records by the reason for which the tables do not have them."""

    records: int = 0
    links: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    headless: list[LinkKey] = field(default_factory=list)  # their first event is neither in the topic nor in the table
    missing: list[LinkKey] = field(default_factory=list)  # the topic has a newer version than the table; must be empty


class Replay:
    """Reads the topic up to where it ends now, has the writer write, and looks whether every link is there."""

    def __init__(self, topic: EventTopic, table: LinkTable, *, write: Handler, decode: Decode, clock: Clock) -> None:
        self._topic = topic
        self._table = table
        self._write = write
        self._decode = decode
        self._clock = clock

    async def spans(self, *, since: datetime | None) -> Sequence[Span]:
        """What there is to replay now: all that the broker stored from `since` on (None: all it still has).

        Raises:
            Unavailable: Kafka is away.
        """
        return await self._topic.spans(since=since)

    async def run(self, spans: Sequence[Span], advance: Advance) -> Replayed:
        """Replays these, and tells `advance` how many more records are done.

        Raises:
            Unavailable: Kafka, the database or Redis was away for a minute; the replay may be repeated.
        """
        total = Replayed()
        turns = asyncio.Semaphore(_PARTITIONS_MAX)

        async def one(span: Span) -> None:
            async with turns:
                await self._partition(span, total, advance)

        try:
            async with asyncio.TaskGroup() as tasks:
                for span in spans:
                    tasks.create_task(one(span))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # one is as good as all: the replay is repeated
        return total

    async def _partition(self, span: Span, total: Replayed, advance: Advance) -> None:
        reach: dict[LinkKey, Reach] = {}
        offset = span.begin
        while offset < span.end:
            records = await self._patiently(partial(self._topic.read, span, offset, limit=_READ_MAX))
            if not records:
                break  # what stood there has aged out meanwhile
            for wave in waves([record.key for record in records], _BATCH_MAX):
                batch = [records[index] for index in wave]
                outcomes = await self._patiently(partial(self._write, batch))
                self._take_note(batch, outcomes, reach, total.rejected)
            behind = records[-1].offset + 1
            advance(behind - offset)
            offset = behind
            total.records += len(records)
        total.links += len(reach)
        await self._verify(reach, total)

    async def _verify(self, reach: Mapping[LinkKey, Reach], total: Replayed) -> None:
        for keys in _parts(list(reach)):
            versions = await self._patiently(partial(self._table.versions, keys))
            pairs = zip(keys, versions, strict=True)
            total.missing += [key for key, version in pairs if (version or 0) < reach[key].newest]
        for keys in _parts([key for key, span in reach.items() if span.oldest > 1]):
            are_there = await self._patiently(partial(self._table.have_first_events, keys))
            total.headless += [key for key, is_there in zip(keys, are_there, strict=True) if not is_there]

    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the call returns; again while a store is away, for a minute."""
        deadline, attempt = self._clock.monotonic() + _PATIENCE_S, 0
        while True:
            try:
                return await call()
            except Unavailable:
                if self._clock.monotonic() >= deadline:
                    raise
            await self._clock.sleep(_AGAIN.delay_s(attempt))
            attempt += 1

    def _take_note(
        self, batch: Sequence[Record], outcomes: Sequence[Outcome], reach: dict[LinkKey, Reach], rejected: Counter[str]
    ) -> None:
        for record, outcome in zip(batch, outcomes, strict=True):
            item = self._decode(record)
            if isinstance(outcome, Rejected):
                rejected[outcome.reason] += 1
            elif isinstance(item, StoredEvent):
                key, version = item.event.link.key, item.event.version
                span = reach.get(key, Reach(version, version))
                reach[key] = Reach(min(span.oldest, version), max(span.newest, version))


def _parts(keys: Sequence[LinkKey]) -> list[Sequence[LinkKey]]:
    return [keys[start : start + _KEYS_MAX] for start in range(0, len(keys), _KEYS_MAX)]
