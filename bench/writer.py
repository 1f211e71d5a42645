"""make bench-writer: how many link events a second the writer stores, and what one costs.

python -m bench.writer [--events 20000]

A backlog stands in the topic before the writer starts, so that nothing but the writer sets the pace: first LinkCreated
events of new links, then as many changes of the same links (two versions each for half of them). The links' values are
in Redis, so that each is marked. CPU is what the kernel accounts to each process between the first event and the last.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.processes import cpu_s, family, resident_mb
from chassis.clock import SystemClock, uuid7
from chassis.kafka.partitions import partition_of
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from chassis.redis import open_redis
from contracts.cache import encode_entry, url_key
from contracts.link import EventId, EventType, Link, LinkEvent, UserId
from contracts.link_codec import encode_event, event_type_name
from contracts.topics import LINKS_EVENTS
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine, ValkeyEngine
from linkmesh.local.ports import free_port
from linkmesh.local.probes import http_get
from linkmesh.local.storage import ensure_tables, ensure_topics

_ROOT = Path(__file__).resolve().parents[1]
_LIBRARY = _ROOT / "contracts"
_SENT_AT_ONCE = 5000
_POLL_S = 0.25  # each look at /metrics costs the writer some milliseconds
_PHASE_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class WriterFigures:
    """What one backlog took."""

    backlog: str
    events: int
    events_per_s: float
    writer_us: float  # CPU per event
    dynamodb_us: float
    valkey_us: float
    writer_mb: float


@dataclass(frozen=True, slots=True)
class _Engines:
    kafka: KafkaEngine
    valkey: ValkeyEngine
    dynamodb: DynamoDBEngine


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="of each backlog")
    figures = asyncio.run(measure(parser.parse_args().events))
    print(text(figures))
    return 0


async def measure(events: int) -> list[WriterFigures]:
    """The figures of both backlogs, on engines of their own."""
    with tempfile.TemporaryDirectory() as folder:
        async with _running(Path(folder)) as engines:
            made = [_new_link(number) for number in range(events)]
            changed = [_next(link) for link in made[: events // 2]]
            changes = [*changed, *(_next(link) for link in changed)]
            return [
                await _phase("creates", engines, made, Path(folder)),
                await _phase("changes", engines, changes, Path(folder)),
            ]


def text(figures: Sequence[WriterFigures]) -> str:
    """The figures as a table of Markdown."""
    lines = [
        "| backlog | events | events/s | writer CPU µs | DynamoDB CPU µs | Valkey CPU µs | writer MB |",
        "|" + "---|" * 7,
    ]
    lines += [
        f"| {row.backlog} | {row.events} | {row.events_per_s:,.0f} | {row.writer_us:.0f} | {row.dynamodb_us:.0f} "
        f"| {row.valkey_us:.0f} | {row.writer_mb:.0f} |"
        for row in figures
    ]
    return "\n".join(lines)


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[_Engines]:
    engines = _Engines(
        KafkaEngine(folder / "kafka", free_port(), free_port()),
        ValkeyEngine(folder / "valkey", free_port()),
        DynamoDBEngine(folder / "dynamodb", free_port()),
    )
    started: list[KafkaEngine | ValkeyEngine | DynamoDBEngine] = []
    try:
        for engine in (engines.kafka, engines.valkey, engines.dynamodb):
            started.append(engine)
            await engine.start()
        await ensure_tables(engines.dynamodb.endpoint)
        await ensure_topics(engines.kafka.bootstrap)
        async with open_redis(engines.valkey.url, timeout_s=10) as redis:
            for library in _LIBRARY.glob("linkmesh_v*.lua"):
                await redis.function_load(library.read_text())
        yield engines
    finally:
        for engine in reversed(started):
            await engine.stop()


async def _phase(backlog: str, engines: _Engines, links: Sequence[Link], folder: Path) -> WriterFigures:
    await _preload(engines, links)
    admin_port = free_port()
    process = _start(engines, admin_port, folder)
    try:
        watched = [[process.pid], _pids(engines.dynamodb), _pids(engines.valkey)]
        began, first, before = time.monotonic(), 0, [0.0, 0.0, 0.0]
        deadline = began + _PHASE_TIMEOUT_S
        while (done := await _finished(admin_port)) < len(links):
            if not first:
                began, first, before = time.monotonic(), done, [cpu_s(pids) for pids in watched]
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(
                    f"the writer finished {done} of {len(links)}: {(folder / 'writer.log').read_text()[-500:]}"
                )
            await asyncio.sleep(_POLL_S)
        took, count = time.monotonic() - began, len(links) - first
        used = [(cpu_s(pids) - then) / count * 1e6 for pids, then in zip(watched, before, strict=True)]
        writer_us, dynamodb_us, valkey_us = used
        memory = resident_mb([process.pid])
        return WriterFigures(backlog, len(links), count / took, writer_us, dynamodb_us, valkey_us, memory)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _pids(engine: DynamoDBEngine | ValkeyEngine) -> list[int]:
    assert engine.pid is not None, "it was started"
    return family(engine.pid)


async def _preload(engines: _Engines, links: Sequence[Link]) -> None:
    async with open_redis(engines.valkey.url, timeout_s=30) as redis:
        for start in range(0, len(links), _SENT_AT_ONCE):
            pipeline = redis.pipeline(transaction=False)
            for link in links[start : start + _SENT_AT_ONCE]:
                pipeline.set(url_key(link.key), encode_entry(link))
            await pipeline.execute()
    async with Producer(engines.kafka.bootstrap, client_id="bench", clock=SystemClock()) as producer:
        for start in range(0, len(links), _SENT_AT_ONCE):
            messages = [_message(link) for link in links[start : start + _SENT_AT_ONCE]]
            if await producer.send_in_order(messages, timeout_s=60) != len(messages):
                raise RuntimeError("the broker did not take the backlog")


def _start(engines: _Engines, admin_port: int, folder: Path) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")} | {
        "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "protos/gen")]),
        "LINKMESH_KAFKA": engines.kafka.bootstrap,
        "LINKMESH_REDIS": engines.valkey.url,
        "LINKMESH_DYNAMODB": engines.dynamodb.endpoint,
        "LINKMESH_GRPC_PORT": str(free_port()),
        "LINKMESH_ADMIN_PORT": str(admin_port),
    }
    with (folder / "writer.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "writer"], cwd=_ROOT, env=environment, stdout=log, stderr=log)


async def _finished(admin_port: int) -> int:
    """How many events the writer has finished so far; one that it was given twice counts once."""
    _, body = await http_get(admin_port, "/metrics")
    for family_ in text_string_to_metric_families(body.decode()):
        for sample in family_.samples:
            if sample.name == "consumer_records_total" and sample.labels.get("outcome") == "done":
                return int(sample.value)
    return 0


def _new_link(number: int) -> Link:
    now = SystemClock().now()
    return Link(
        short_code=f"b{number:06d}",
        long_url=f"https://example.org/some/longer/path/{number}?with=parameters",
        user_id=UserId(f"user-{number % 100}"),
        version=1,
        event_id=EventId(uuid7(now)),
        created_at=now,
        updated_at=now,
        title="A link of the bench",
        tags=("bench",),
    )


def _next(link: Link) -> Link:
    at = link.updated_at + timedelta(milliseconds=1)
    return replace(link, version=link.version + 1, event_id=EventId(uuid7(at)), updated_at=at, title="Changed")


def _message(link: Link) -> Message:
    kind = EventType.CREATED if link.version == 1 else EventType.UPDATED
    event = LinkEvent(
        type=kind, event_id=link.event_id, version=link.version, at=link.updated_at, user_id=link.user_id, link=link
    )
    key = link.key.encode()
    headers = (("ce_type", event_type_name(kind).encode()), ("ce_id", link.event_id.encode()))
    return Message(LINKS_EVENTS.name, key, encode_event(event), headers, partition_of(key, LINKS_EVENTS.partitions))


if __name__ == "__main__":
    sys.exit(main())
