"""A relay as a process that can be killed, writers beside it, and a look at what the broker has."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.producer import Producer
from chassis.kafka.record import Record
from chassis.redis import open_redis
from contracts.link import Link
from contracts.link_codec import decode_event
from contracts.topics import LINKS_EVENTS
from link_service.adapters.link_cache_redis import RedisLinkCache
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from link_service.loops.relay import Relay
from link_service.ports import Done
from tests.contract.link_cache.worlds import mutation_of, new_link, next_of

ROOT = Path(__file__).parents[3]


@contextlib.asynccontextmanager
async def open_relay(redis_url: str, bootstrap: str, candidate: str) -> AsyncIterator[Relay]:
    """A relay as link_service wires it."""
    clock = SystemClock()
    async with (
        open_redis(redis_url, timeout_s=ANSWER_TIMEOUT_S) as client,
        Producer(bootstrap, client_id=f"relay-{candidate}", clock=clock, linger_ms=0) as producer,
    ):
        yield Relay(outbox=RedisOutbox(client, clock=clock), sender=producer, clock=clock, candidate=candidate)


@contextlib.asynccontextmanager
async def running_relay(redis_url: str, bootstrap: str, candidate: str = "here") -> AsyncIterator[None]:
    """A relay in this process, for the time of the block."""
    stop = asyncio.Event()
    async with open_relay(redis_url, bootstrap, candidate) as relay, asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stop))
        try:
            yield
        finally:
            stop.set()


class RelayProcess:
    """A relay in a process of its own."""

    def __init__(self, redis_url: str, bootstrap: str, candidate: str) -> None:
        self.candidate = candidate
        self._arguments = (redis_url, bootstrap, candidate)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it, once; it leads when it can."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "protos/gen")])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.relay.relay_process",
            *self._arguments,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process, which must be running."""
        assert self._process is not None
        assert self._process.returncode is None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        """Sends a signal, unless it has ended or never ran, and waits for the end; returns the exit code."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(20):
            return await self._process.wait()


class LinkWriter:
    """Writes version after version of some links; remembers what was acknowledged."""

    def __init__(self, cache: RedisLinkCache, codes: list[str]) -> None:
        self._cache = cache
        self._codes = codes
        self.acknowledged: dict[str, list[int]] = {code: [] for code in codes}

    async def run(self, stop: asyncio.Event, *, pause_s: float = 0.005) -> None:
        """Each link by a task of its own, so that many are in flight."""
        async with asyncio.TaskGroup() as tasks:
            for code in self._codes:
                tasks.create_task(self._write(code, stop, pause_s))

    async def _write(self, code: str, stop: asyncio.Event, pause_s: float) -> None:
        link: Link | None = None
        while not stop.is_set():
            wanted = next_of(link) if link else new_link(code)
            with contextlib.suppress(Unavailable):
                verdict = await self._cache.mutate(mutation_of(wanted, generated=link is None))
                assert isinstance(verdict, Done)
                link = verdict.link
                self.acknowledged[code].append(link.version)
            await SystemClock().sleep(pause_s)

    @property
    def count(self) -> int:
        """How many mutations were acknowledged."""
        return sum(len(versions) for versions in self.acknowledged.values())


async def records_in(bootstrap: str) -> list[Record]:
    """All records of links-events, in order per partition."""
    partitions = [TopicPartition(LINKS_EVENTS.name, number) for number in range(LINKS_EVENTS.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    found: list[Record] = []
    async with asyncio.timeout(30):
        await consumer.start()
        try:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += [
                        Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
                        for r in batch
                    ]
        finally:
            await consumer.stop()
    return found


def versions_of(records: list[Record]) -> dict[str, list[int]]:
    """The versions of each link in the order of the log, repeats included."""
    found: dict[str, list[int]] = {}
    for record in records:
        event = decode_event(record.header("ce_type") or "", record.value)
        assert record.key == event.link.key.encode()
        assert record.header("ce_id") == event.event_id
        found.setdefault(event.link.key, []).append(event.version)
    return found
