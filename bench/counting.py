"""make bench-counting: what analytics takes for a click, alone, without gateways.

python -m bench.counting [--rate 10000] [--flush 60] [--seconds 60] [--warm 60] [--backlog]

Clicks come into the topic at a fixed rate, in records as gateways make them: Zipf over 100 000 links of 1 000 accounts.
After some seconds to get warm, CPU (as the kernel accounts it), rows written and memory are those of the next ones,
flushes included. With --backlog the clicks of one interval stand in the topic before analytics starts: what the first
interval of an hour costs, in which every row is read before it is made. BENCH_PYTHON="python -m cProfile -o FILE" as
the environment says starts analytics under a profiler.
"""

import argparse
import asyncio
import itertools
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import cpu_s, family, resident_mb
from chassis.clock import SystemClock, uuid7
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from contracts.link import LinkKey
from contracts.topics import ANALYTICS_EVENTS, click_partition
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine
from linkmesh.local.ports import free_port
from linkmesh.local.probes import http_get
from linkmesh.local.storage import ensure_tables, ensure_topics
from shortener.events.v1 import click_events_pb2 as events_pb

_ROOT = Path(__file__).resolve().parents[1]
_SENT_AT_ONCE = 400
_POLL_S = 0.5  # each look at /metrics costs analytics some milliseconds
_TIMEOUT_S = 600.0
_SENDS_PER_S = 10
_CLICKS = events_pb.LinksAccessed.DESCRIPTOR.full_name.encode()
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS {} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
        "Mobile/15E148 Safari/604.1"
    ),
    (
        "Mozilla/5.0 (Linux; Android 14; Pixel {}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile "
        "Safari/537.36"
    ),
    "Mozilla/5.0 (X11; Linux x86_64; rv:{}.0) Gecko/20100101 Firefox/{}.0",
)


@dataclass(frozen=True, slots=True)
class Load:
    """The clicks of the bench: Zipf over the links, each of which is one of the accounts'."""

    rate: int
    links: int
    accounts: int
    batch: int


@dataclass(frozen=True, slots=True)
class CountingFigures:
    """What so many clicks took. CPU in µs per click; of analytics with all that it does by itself."""

    clicks: int
    clicks_per_s: float
    cpu_us: float
    dynamodb_us: float
    rows_per_click: float
    memory_mb: float


class Crowd:
    """Makes the load. The same seed gives the same clicks."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._chance = random.Random(1)
        weights = itertools.accumulate(1 / rank for rank in range(1, load.links + 1))
        self._weights = list(weights)
        self._partitions = [click_partition(_key(number), ANALYTICS_EVENTS.partitions) for number in range(load.links)]
        self._visitors = [self._chance.randbytes(16) for _ in range(200_000)]
        self._spools = [uuid7(SystemClock().now()) for _ in range(ANALYTICS_EVENTS.partitions)]
        self._sequences = [1] * ANALYTICS_EVENTS.partitions

    def messages(self, clicks: int) -> Iterator[Message]:
        """So many further clicks, as records of one gateway."""
        waiting: list[list[events_pb.LinkAccessed]] = [[] for _ in self._spools]
        numbers = self._chance.choices(range(self._load.links), cum_weights=self._weights, k=clicks)
        for number in numbers:
            partition = self._partitions[number]
            waiting[partition].append(self._click(number))
            if len(waiting[partition]) == self._load.batch:
                yield self._record(partition, waiting[partition])
                waiting[partition] = []
        for partition, rest in enumerate(waiting):
            if rest:
                yield self._record(partition, rest)

    def _click(self, number: int) -> events_pb.LinkAccessed:
        chance = self._chance
        click = events_pb.LinkAccessed(
            link_key=_key(number),
            user_id=f"user-{number % self._load.accounts:06d}",
            visitor=chance.choice(self._visitors),
            user_agent=chance.choice(_AGENTS).replace("{}", str(100 + chance.randrange(30))),
            referrer="" if chance.random() < 0.5 else f"https://site{int(chance.paretovariate(1)) % 500}.example/",
            country=chance.choice(("DE", "US", "US", "FR", "IN", "BR", "GB", "")),
            visitor_class=chance.choices((1, 2, 3), (90, 8, 2))[0],  # type: ignore[arg-type]  # numbers of the enum
        )
        click.at.FromMilliseconds(int(time.time() * 1000))
        return click

    def _record(self, partition: int, clicks: Sequence[events_pb.LinkAccessed]) -> Message:
        spool_id, first = self._spools[partition], self._sequences[partition]
        self._sequences[partition] += len(clicks)
        value = events_pb.LinksAccessed(spool_id=spool_id, first_sequence=first, clicks=clicks).SerializeToString()
        return Message(ANALYTICS_EVENTS.name, spool_id.encode(), value, (("ce_type", _CLICKS),), partition)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000, help="clicks a second")
    parser.add_argument("--flush", type=float, default=60.0, help="seconds between flushes")
    parser.add_argument("--seconds", type=float, default=60.0, help="that are measured")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds before them")
    parser.add_argument("--links", type=int, default=100_000)
    parser.add_argument("--accounts", type=int, default=1000, help="that the links belong to")
    parser.add_argument("--batch", type=int, default=100, help="clicks of a record")
    parser.add_argument("--backlog", action="store_true", help="the clicks of one interval, as fast as they go")
    options = parser.parse_args()
    load = Load(options.rate, options.links, options.accounts, options.batch)
    if options.backlog:
        figures = asyncio.run(measure_backlog(load, options.flush))
    else:
        figures = asyncio.run(measure_paced(load, options.flush, warm_s=options.warm, measured_s=options.seconds))
    print(text(figures))
    return 0


def text(figures: CountingFigures) -> str:
    """The figures as a table of Markdown."""
    return (
        "| clicks | clicks/s | analytics CPU µs/click | DynamoDB CPU µs/click | rows written/click | analytics MB |\n"
        f"|{'---|' * 6}\n"
        f"| {figures.clicks} | {figures.clicks_per_s:,.0f} | {figures.cpu_us:.1f} | {figures.dynamodb_us:.1f} "
        f"| {figures.rows_per_click:.3f} | {figures.memory_mb:.0f} |"
    )


async def measure_backlog(load: Load, flush_s: float) -> CountingFigures:
    """The clicks of one interval that are there already; counted at once, and then written in the course of it."""
    async with _running() as engines:
        clicks = int(load.rate * flush_s)
        await _send(engines.kafka, list(Crowd(load).messages(clicks)))
        analytics = _Analytics(engines, flush_s)
        try:
            await analytics.ready()
            began, before = time.monotonic(), _Look(0, analytics.cpu_s(), engines.dynamodb_cpu_s(), 0)
            while await analytics.metric("clicks_counted_total") < clicks:
                await analytics.pause(began)
            took_s = time.monotonic() - began
            while await analytics.metric('analytics_rows{state="dirty"}'):
                await analytics.pause(began)
            return _figures(before, await _look(engines, analytics), took_s, analytics.memory_mb())
        finally:
            analytics.stop()


async def measure_paced(load: Load, flush_s: float, *, warm_s: float, measured_s: float) -> CountingFigures:
    """Clicks at a fixed rate."""
    async with _running() as engines:
        crowd = Crowd(load)
        batches = [list(crowd.messages(load.rate)) for _ in range(int(warm_s + measured_s))]  # one for each second
        analytics = _Analytics(engines, flush_s)
        try:
            await analytics.ready()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_send_paced(engines.kafka, batches))
                await asyncio.sleep(warm_s)
                began, before = time.monotonic(), await _look(engines, analytics)
                await asyncio.sleep(measured_s)
                took_s, after = time.monotonic() - began, await _look(engines, analytics)
            return _figures(before, after, took_s, analytics.memory_mb())
        finally:
            analytics.stop()


@dataclass(frozen=True, slots=True)
class _Look:
    clicks: int
    cpu_s: float
    dynamodb_s: float
    rows: int


async def _look(engines: "_Engines", analytics: "_Analytics") -> _Look:
    return _Look(
        int(await analytics.metric("clicks_counted_total")),
        analytics.cpu_s(),
        engines.dynamodb_cpu_s(),
        int(await analytics.metric("analytics_rows_written_total")),
    )


def _figures(before: _Look, after: _Look, took_s: float, memory_mb: float) -> CountingFigures:
    clicks = after.clicks - before.clicks
    return CountingFigures(
        clicks,
        clicks / took_s,
        (after.cpu_s - before.cpu_s) / clicks * 1e6,
        (after.dynamodb_s - before.dynamodb_s) / clicks * 1e6,
        (after.rows - before.rows) / clicks,
        memory_mb,
    )


async def _send(kafka: KafkaEngine, messages: Sequence[Message]) -> None:
    async with Producer(kafka.bootstrap, client_id="bench", clock=SystemClock(), compression="lz4") as producer:
        for start in range(0, len(messages), _SENT_AT_ONCE):
            part = messages[start : start + _SENT_AT_ONCE]
            if await producer.send_in_order(part, timeout_s=60) != len(part):
                raise RuntimeError("the broker did not take the clicks")


async def _send_paced(kafka: KafkaEngine, batches: Sequence[Sequence[Message]]) -> None:
    async with Producer(kafka.bootstrap, client_id="bench", clock=SystemClock(), compression="lz4") as producer:
        began = time.monotonic()
        for second, messages in enumerate(batches):
            step = max(1, len(messages) // _SENDS_PER_S)
            for start in range(0, len(messages), step):
                await asyncio.sleep(max(0.0, began + second + start / len(messages) - time.monotonic()))
                part = messages[start : start + step]
                if await producer.send_in_order(part, timeout_s=10) != len(part):
                    raise RuntimeError("the broker did not take the clicks")


@dataclass(frozen=True, slots=True)
class _Engines:
    folder: Path
    kafka: KafkaEngine
    dynamodb: DynamoDBEngine

    def dynamodb_cpu_s(self) -> float:
        assert self.dynamodb.pid is not None, "it was started"
        return cpu_s(family(self.dynamodb.pid))


@asynccontextmanager
async def _running() -> AsyncIterator[_Engines]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kafka = KafkaEngine(folder / "kafka", free_port(), free_port())
        dynamodb = DynamoDBEngine(folder / "dynamodb", free_port())
        started: list[KafkaEngine | DynamoDBEngine] = []
        try:
            for engine in (kafka, dynamodb):
                started.append(engine)
                await engine.start()
            await ensure_tables(dynamodb.endpoint)
            await ensure_topics(kafka.bootstrap)
            yield _Engines(folder, kafka, dynamodb)
        finally:
            for engine in reversed(started):
                await engine.stop()


class _Analytics:
    """The process under test."""

    def __init__(self, engines: _Engines, flush_s: float) -> None:
        self._log = engines.folder / "analytics.log"
        self._port = free_port()
        secret = engines.folder / "secret"
        secret.write_text("5" * 64)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")} | {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "protos/gen")]),
            "LINKMESH_KAFKA": engines.kafka.bootstrap,
            "LINKMESH_DYNAMODB": engines.dynamodb.endpoint,
            "LINKMESH_LINK_SERVICE": f"127.0.0.1:{free_port()}",  # nobody: no question is asked
            "LINKMESH_MESH_SECRET_FILE": str(secret),
            "LINKMESH_GRPC_PORT": str(free_port()),
            "LINKMESH_ADMIN_PORT": str(self._port),
            "LINKMESH_FLUSH_INTERVAL_S": str(flush_s),
        }
        command = [*shlex.split(os.environ.get("BENCH_PYTHON", sys.executable)), "-m", "analytics"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=log, stderr=log)

    async def ready(self) -> None:
        """Returns once it counts."""
        began = time.monotonic()
        while (await http_get(self._port, "/readyz"))[0] != 200:
            await self.pause(began)

    async def pause(self, began: float) -> None:
        """Waits a little. Raises RuntimeError if that goes on for too long, or the process is gone."""
        if time.monotonic() - began > _TIMEOUT_S or self._process.poll() is not None:
            raise RuntimeError(f"analytics does not go on: {self._log.read_text()[-500:]}")
        await asyncio.sleep(_POLL_S)

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        _, body = await http_get(self._port, "/metrics")
        lines = body.decode().splitlines()
        wanted = (name,) if "{" in name else (f"{name} ", f"{name}{{")
        return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))

    def cpu_s(self) -> float:
        return cpu_s([self._process.pid])

    def memory_mb(self) -> float:
        return resident_mb([self._process.pid])

    def stop(self) -> None:
        """Ends it well."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def _key(number: int) -> LinkKey:
    return LinkKey(f"b{number:06d}")


if __name__ == "__main__":
    sys.exit(main())
