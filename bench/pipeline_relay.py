"""How fast the relay empties an outbox, and what an event costs: entries stand in Redis, then the relay may go."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from bench.processes import cpu_s
from chassis.clock import uuid7
from chassis.redis import Redis, open_redis
from contracts.cache import BUCKETS, OUTBOX_FIELD, outbox_key
from contracts.link import EventId, EventType, Link, LinkEvent, LinkKey, UserId, bucket_of
from contracts.outbox_entries import encode_outbox_entry
from linkmesh.local.engines import Engine, KafkaEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from linkmesh.local.storage import ensure_topics

Started = TypeVar("Started", bound=Engine)
ROOT = Path(__file__).resolve().parent.parent
_WARM_UP = 2_000
_PIPELINE = 500
_PATIENCE_S = 120.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """`cpu_us`: of the relay's process; `bytes_per_entry`: by Redis' own estimate."""

    events: int
    events_per_s: float
    cpu_us: float
    bytes_per_entry: float


async def measure(folder: Path, *, events: int) -> RelayFigures:
    """A relay that is stopped while `events` entries are written, on engines of its own."""
    broker = KafkaEngine(folder / "kafka", free_port(), free_port(), throughput=True)
    async with _started(ValkeyEngine(folder / "valkey", free_port())) as valkey, _started(broker) as kafka:
        await ensure_topics(kafka.bootstrap)
        async with open_redis(valkey.url, timeout_s=10) as client, _relay(valkey.url, kafka.bootstrap) as pid:
            await _write(client, range(_WARM_UP))
            await _until_below(client, 1)
            with _stopped(pid):
                await _write(client, range(events))
                size_bytes = await _size_bytes(client)
            before_s = cpu_s([pid])
            await _until_below(client, events)  # its lease may have to be taken again first
            began, left = time.perf_counter(), await _entries(client)
            await _until_below(client, 1)
            took_s = time.perf_counter() - began
            used_s = cpu_s([pid]) - before_s
    return RelayFigures(events, left / took_s, 1e6 * used_s / events, size_bytes / events)


def _entry(number: int) -> tuple[str, bytes]:
    """The stream and the entry of a create, as link_service writes it."""
    now = datetime.now(UTC)
    link = Link(
        short_code=f"b{number:06d}",
        long_url=f"https://example.com/campaigns/autumn/{number}?utm_source=newsletter",
        user_id=UserId("018f0000-0000-7000-8000-000000000000"),
        version=1,
        event_id=EventId(uuid7(now)),
        created_at=now,
        updated_at=now,
    )
    event = LinkEvent(
        type=EventType.CREATED, event_id=link.event_id, version=1, at=now, user_id=link.user_id, link=link
    )
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return outbox_key(bucket_of(LinkKey(link.short_code))), encode_outbox_entry(event, traceparent)


async def _write(client: Redis, numbers: Iterable[int]) -> None:
    entries = [_entry(number) for number in numbers]
    for start in range(0, len(entries), _PIPELINE):
        async with client.pipeline(transaction=False) as pipe:
            for stream, entry in entries[start : start + _PIPELINE]:
                pipe.xadd(stream, {OUTBOX_FIELD: entry})
            await pipe.execute()


async def _entries(client: Redis) -> int:
    async with client.pipeline(transaction=False) as pipe:
        for bucket in range(BUCKETS):
            pipe.xlen(outbox_key(bucket))
        return sum(await pipe.execute())


async def _size_bytes(client: Redis) -> int:
    async with client.pipeline(transaction=False) as pipe:
        for bucket in range(BUCKETS):
            pipe.memory_usage(outbox_key(bucket))
        return sum(size or 0 for size in await pipe.execute())


async def _until_below(client: Redis, limit: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while await _entries(client) >= limit:  # noqa: ASYNC110 (asked over the network)
            await asyncio.sleep(_POLL_S)


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _started(engine: Started) -> AsyncIterator[Started]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@contextlib.asynccontextmanager
async def _relay(redis_url: str, bootstrap: str) -> AsyncIterator[int]:
    """The relay's process; yields its id."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos/gen")])
    environment = {**os.environ, "PYTHONPATH": path}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.relay_process", redis_url, bootstrap, cwd=ROOT, env=environment
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()
