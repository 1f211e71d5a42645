"""Redis, the tables and the topic as values: each call makes a new one of an old one and a reply.

The rules are not written here. A call fills one of the project's fakes (which tests/contract proves to be like the real
thing) from the value, runs on it, and what the fake then holds is the next value.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from contracts.cache import LeaseToken
from contracts.link import EventId, Link, LinkEvent, LinkKey, bucket_of
from contracts.link_codec import encode_event
from contracts.link_rows import Reservation
from link_service.ports import Position, QueuedEntry
from tests.fakes import link_service_ports, writer_link_table
from tests.fakes.kafka_time import START
from tests.fakes.link_cache import FakeLinkCache, FakeOutbox, FakeRedis
from tests.model.automaton import Call, Pairs, frozen
from writer.ports import StoredEvent


class RedisState(NamedTuple):
    """All that Redis holds. `values`: key, link, whether it has an expiry."""

    minutes: int = 0
    run: int = 1
    values: tuple[tuple[LinkKey, Link, bool], ...] = ()
    leases: tuple[tuple[LinkKey, LeaseToken], ...] = ()
    results: tuple[tuple[EventId, Link], ...] = ()
    outbox: tuple[QueuedEntry, ...] = ()
    last: Position = Position((0, 0))
    intents: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def value(self, key: LinkKey) -> Link | None:
        """The entry of a link."""
        return next((link for name, link, _ in self.values if name == key), None)

    @property
    def now(self) -> datetime:
        """Redis' clock."""
        return START + timedelta(minutes=self.minutes)


class TableState(NamedTuple):
    """Event rows in the order of their versions, and projections."""

    rows: tuple[tuple[LinkKey, int, LinkEvent], ...] = ()
    meta: tuple[tuple[LinkKey, Link | Reservation], ...] = ()

    def projection(self, key: LinkKey) -> Link | Reservation | None:
        """META of a link."""
        return next((item for name, item in self.meta if name == key), None)

    def events(self, key: LinkKey) -> list[LinkEvent]:
        """The event rows of a link."""
        return [event for name, _, event in self.rows if name == key]


class LogState(NamedTuple):
    """Records that are not committed, with the minute of their arrival, and dead letters."""

    waiting: tuple[tuple[LinkEvent, int], ...] = ()
    letters: tuple[LinkEvent, ...] = ()


@dataclass(frozen=True)
class Stores:
    """Which fakes play the stores; mutants bring their own. `batch`: how many entries the relay reads at a time."""

    redis: type[FakeRedis] = FakeRedis
    cache: type[FakeLinkCache] = FakeLinkCache
    table: type[link_service_ports.FakeLinkTable] = link_service_ports.FakeLinkTable
    rows: type[writer_link_table.FakeLinkTable] = writer_link_table.FakeLinkTable
    intents: type[link_service_ports.FakeIntents] = link_service_ports.FakeIntents
    batch: int = 2

    def on_redis(self, state: RedisState, call: Call, token: int) -> tuple[RedisState, Any]:
        """The state after a call, and the reply. `token`: number of the token that a lease gets if it is granted."""
        clock = _Fixed(state.now)
        redis = self.redis(clock)
        redis.values = {key: (link, 1.0 if expires else None) for key, link, expires in state.values}
        redis.leases = {key: (held, 1.0) for key, held in state.leases}
        redis.results = dict(state.results)
        redis._last = state.last
        redis.streams = defaultdict(list)
        for entry in state.outbox:
            redis.streams[entry.bucket].append(entry)
        intents = self.intents()
        for name, pairs in state.intents:
            setattr(intents, name, dict(pairs))
        cache = self.cache(redis)
        cache._tokens = itertools.count(token)
        reply = _run(self._method(call, state, redis, cache, intents))
        after = RedisState(
            minutes=state.minutes,
            run=state.run,
            values=tuple(sorted((key, link, until is not None) for key, (link, until) in redis.values.items())),
            leases=tuple(sorted((key, held) for key, (held, _) in redis.leases.items())),
            results=tuple(sorted(redis.results.items())),
            outbox=tuple(entry for bucket in sorted(redis.streams) for entry in redis.streams[bucket]),
            last=redis._last,
            intents=tuple((field.name, _items(getattr(intents, field.name))) for field in _dicts(intents)),
        )
        return after, frozen(reply)

    def _method(
        self,
        call: Call,
        state: RedisState,
        redis: FakeRedis,
        cache: FakeLinkCache,
        intents: link_service_ports.FakeIntents,
    ) -> Coroutine[Any, Any, Any]:
        args = [dict(item.items) if isinstance(item, Pairs) else item for item in call.args]
        port: Any
        match call.port:
            case "cache":
                port = cache
            case "intents":
                port = intents
            case "outbox":
                port = FakeOutbox(redis, per_stream=self.batch)
            case "marker":
                port = _Marker(cache)
            case "server":
                port = link_service_ports.FakeCacheServer(run=f"run-{state.run}", oldest=_oldest_in(state))
            case _:
                raise AssertionError(call)
        work: Coroutine[Any, Any, Any] = getattr(port, call.name)(*args, **dict(call.kwargs))
        return work

    def on_table(self, state: TableState, call: Call) -> tuple[TableState, Any]:
        """The tables after a call, and the reply."""
        rows = {(key, version): event for key, version, event in state.rows}
        if call.port == "table":
            table = self.table(meta=dict(state.meta), rows=dict(rows))
            reply = _run(getattr(table, call.name)(*call.args, **dict(call.kwargs)))
            return TableState(_rows(table.rows), tuple(sorted(table.meta.items(), key=_first))), frozen(reply)
        written = self.rows()
        written.events = {name: StoredEvent(event, encode_event(event)) for name, event in rows.items()}
        written.links = {key: item if isinstance(item, Link) else None for key, item in state.meta}
        reply = _run(getattr(written, call.name)(*call.args, **dict(call.kwargs)))
        events = {name: stored.event for name, stored in written.events.items()}
        # writer knows of a reservation only that it is one
        meta: dict[LinkKey, Any] = {key: link or state.projection(key) for key, link in written.links.items()}
        return TableState(_rows(events), tuple(sorted(meta.items(), key=_first))), frozen(reply)

    def on_log(self, state: LogState, call: Call) -> Any:
        """The reply of a call that asks the topic."""
        assert call.name == "oldest_unwritten", call
        return START + timedelta(minutes=state.waiting[0][1]) if state.waiting else None


class _Marker:
    """writer's way to Redis."""

    def __init__(self, cache: FakeLinkCache) -> None:
        self._cache = cache

    async def persisted(self, links: tuple[Link, ...]) -> None:
        for link in links:
            await self._cache.persisted(link)


class _Fixed:
    """A clock that stands; whatever has an expiry has it ahead."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, delay_s: float) -> None:
        raise AssertionError("nobody sleeps in a store")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a fake waits for something")


def _oldest_in(state: RedisState) -> Callable[[LinkKey], datetime | None]:
    def oldest(key: LinkKey) -> datetime | None:
        found = [entry.position[0] for entry in state.outbox if entry.bucket == bucket_of(key)]
        return datetime.fromtimestamp(found[0] / 1000, START.tzinfo) if found else None

    return oldest


def _rows(rows: dict[tuple[LinkKey, int], LinkEvent]) -> tuple[tuple[LinkKey, int, LinkEvent], ...]:
    return tuple((*name, rows[name]) for name in sorted(rows))


def _first(pair: tuple[Any, ...]) -> Any:
    return pair[0]


def _dicts(intents: link_service_ports.FakeIntents) -> list[Any]:
    return [field for field in fields(intents) if isinstance(getattr(intents, field.name), dict)]


def _items(pairs: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(sorted(pairs.items(), key=_first))
