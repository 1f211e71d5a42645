"""An outbox, a broker and relays in memory and in virtual time, with the faults that a relay must live with."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from chassis.kafka.producer import Sender
from chassis.kafka.record import Message
from contracts.link import Link, LinkState
from contracts.link_codec import decode_event
from contracts.topics import LINKS_EVENTS
from link_service.loops.relay import Relay
from link_service.ports import Outbox, OutboxDepth, Position, QueuedEntry
from tests.contract.link_cache.worlds import mutation_of, new_link, next_of
from tests.fakes.kafka import FakeBroker, FakeSender
from tests.fakes.kafka_time import VirtualClock
from tests.fakes.link_cache import FakeLinkCache, FakeOutbox, FakeRedis


class RelayWorld:
    """Redis, a broker, and what was written to the one and has arrived at the other."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.redis = FakeRedis(self.clock)
        self.cache = FakeLinkCache(self.redis)
        self.broker = FakeBroker(self.clock, {LINKS_EVENTS.name: LINKS_EVENTS.partitions})
        self.links: dict[str, Link] = {}
        self.written: dict[str, list[int]] = {}

    async def write(self, code: str) -> None:
        """The next version of a link."""
        known = self.links.get(code)
        link = next_of(known, state=LinkState.ACTIVE) if known else new_link(code)
        await self.cache.mutate(mutation_of(link, generated=known is None))
        self.links[code] = link
        self.written.setdefault(code, []).append(link.version)

    def arrived(self) -> dict[str, list[int]]:
        """The versions of each link in the order of the log, repeats included."""
        found: dict[str, list[int]] = {}
        for record in self.broker.records(LINKS_EVENTS.name):
            event = decode_event(record.header("ce_type") or "", record.value)
            found.setdefault(event.link.key, []).append(event.version)
        return found

    def first_arrivals(self) -> dict[str, list[int]]:
        """The same without repeats."""
        return {key: list(dict.fromkeys(versions)) for key, versions in self.arrived().items()}

    def waiting(self) -> int:
        """How many entries the outbox holds."""
        return sum(len(stream) for stream in self.redis.streams.values())

    def relay(self, name: str = "a", *, sender: Sender | None = None, outbox: Outbox | None = None) -> Relay:
        """A relay on this world."""
        return Relay(
            outbox=outbox or FakeOutbox(self.redis),
            sender=sender or FakeSender(self.broker),
            clock=self.clock,
            candidate=name,
        )

    async def until(self, holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
        """Lets virtual time pass until a condition holds; fails when it does not in time."""
        deadline = self.clock.monotonic() + within_s
        while not holds():
            assert self.clock.monotonic() < deadline, "it never came true"
            await self.clock.sleep(0.01)


async def relaying(relays: Iterable[Relay], scenario: Callable[[], Awaitable[None]]) -> None:
    """Runs relays while a scenario plays, then stops them and waits for their end."""
    stop = asyncio.Event()
    async with asyncio.timeout(7200), asyncio.TaskGroup() as tasks:
        for relay in relays:
            tasks.create_task(relay.run(stop))
        try:
            await scenario()
        finally:
            stop.set()


class Gate:
    """Stops whoever passes, while it is closed: a process that is paused."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    async def passed(self) -> None:
        """Returns when the gate is open."""
        await self._open.wait()

    def close(self) -> None:
        """From now on nobody passes."""
        self._open.clear()

    def open(self) -> None:
        """All go on."""
        self._open.set()


class PausedOutbox:
    """An Outbox whose user may be paused before and after each call."""

    def __init__(self, outbox: Outbox, gate: Gate) -> None:
        self._outbox = outbox
        self._gate = gate

    async def lead(self, candidate: str, *, lease_ms: int) -> bool:
        await self._gate.passed()
        leading = await self._outbox.lead(candidate, lease_ms=lease_ms)
        await self._gate.passed()
        return leading

    async def resign(self, candidate: str) -> None:
        await self._gate.passed()
        await self._outbox.resign(candidate)

    async def read(self, *, wait_s: float) -> Sequence[QueuedEntry]:
        await self._gate.passed()
        entries = await self._outbox.read(wait_s=wait_s)
        await self._gate.passed()
        return entries

    async def trim(self, through: Mapping[int, Position]) -> None:
        await self._gate.passed()
        await self._outbox.trim(through)
        await self._gate.passed()

    async def set_aside(self, entry: QueuedEntry) -> None:
        await self._outbox.set_aside(entry)

    async def depth(self) -> OutboxDepth:
        return await self._outbox.depth()


class LateSender:
    """A Sender some of whose calls fail: `(acknowledged, stored, late_s)` for each call, then all go well.

    What is stored of a failed call may arrive up to late_s seconds later, from a connection given up long ago.
    """

    def __init__(self, broker: FakeBroker, gate: Gate, fates: Iterable[tuple[int, int, float]]) -> None:
        self._broker = broker
        self._gate = gate
        self._fates = iter(fates)

    async def send_in_order(self, messages: Sequence[Message], *, timeout_s: float) -> int:
        await self._gate.passed()
        acknowledged, stored, late_s = next(self._fates, (len(messages), len(messages), 0.0))
        acknowledged, stored = min(acknowledged, len(messages)), min(stored, len(messages))
        stored = max(stored, acknowledged)
        self._store(messages[:acknowledged])
        asyncio.get_running_loop().call_later(late_s, self._store, messages[acknowledged:stored])
        await self._gate.passed()
        return acknowledged

    def _store(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._broker.append(message.topic, message.key, message.value, message.headers)
