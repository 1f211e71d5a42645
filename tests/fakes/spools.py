"""Spools in a folder of a test, clicks that can be told apart, and what a killed process would leave of them."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chassis.clock import Clock, SystemClock
from gateway.adapters.click_spools import ClickSpools, SpoolOptions
from gateway.adapters.spool_files import Folder
from gateway.adapters.spool_stock import Allocate
from gateway.domain.spool_format import Run
from gateway.domain.spools import Shipment, SpoolTotals
from shortener.events.v1 import click_events_pb2 as pb

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_PATIENCE_S = 20.0


def kept(number: int) -> bytes:
    """What is kept of click `number`; its code tells which it is."""
    return pb.LinksAccessed(clicks=[pb.LinkAccessed(link_key=f"code{number}", user_id="u" * 60)]).SerializeToString()


def numbers_in(clicks: bytes) -> list[int]:
    """Which clicks these are."""
    return [int(click.link_key.removeprefix("code")) for click in pb.LinksAccessed.FromString(clicks).clicks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a test wants otherwise."""

    partitions: int = 2
    bytes_max: int = 1 << 20
    segment_bytes: int = 4096
    allocate: Allocate = Folder.allocate
    clock: Clock = field(default_factory=SystemClock)


@contextlib.asynccontextmanager
async def open_spools(root: Path, wanted: Wanted | None = None) -> AsyncIterator[ClickSpools]:
    """Spools that are kept going, as in a process."""
    want = wanted or Wanted()
    options = SpoolOptions(
        root=root,
        partitions=want.partitions,
        bytes_max=want.bytes_max,
        segment_bytes=want.segment_bytes,
        allocate=want.allocate,
    )
    async with ClickSpools(options, clock=want.clock) as spools, asyncio.TaskGroup() as tasks:
        tasks.create_task(spools.run(asyncio.Event()))
        try:
            yield spools
        finally:
            spools.close()
            spools.finish()


def spooling(root: Path, scenario: Callable[[ClickSpools], Awaitable[None]], wanted: Wanted | None = None) -> None:
    """Runs a scenario with spools under this root."""

    async def main() -> None:
        async with open_spools(root, wanted) as spools:
            await scenario(spools)

    asyncio.run(main())


def left_by_a_kill(root: Path, copy: Path) -> Path:
    """What stands on disk at this moment, under another root where nobody has its locks."""
    for path in root.glob("[!.]*/*"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed just now: it was acknowledged
            shutil.copy(path, copy / path.parent.name)
    return copy


@dataclass(slots=True)
class Log:
    """What was sent, record by record."""

    shipments: list[Shipment] = field(default_factory=list)

    def clicks(self, partition: int = 0) -> list[tuple[str, int, int]]:
        """Spool, sequence and number of each click of a partition."""
        return [
            (shipment.spool_id, sequence, number)
            for shipment in self.shipments
            if shipment.partition == partition and isinstance(shipment.content, Run)
            for sequence, number in enumerate(numbers_in(shipment.content.clicks), shipment.content.first_sequence)
        ]

    def numbers(self, partition: int = 0) -> list[int]:
        """The clicks of a partition."""
        return [number for _, _, number in self.clicks(partition)]

    def totals(self, partition: int = 0) -> list[tuple[str, SpoolTotals]]:
        """What was told of the spools of a partition."""
        return [
            (shipment.spool_id, shipment.content)
            for shipment in self.shipments
            if shipment.partition == partition and isinstance(shipment.content, SpoolTotals)
        ]


def send(spools: ClickSpools, log: Log) -> Sequence[Shipment]:
    """Sends what is there, as a broker would take it that always answers."""
    shipments = spools.shipments()
    for shipment in shipments:
        log.shipments.append(shipment)
        spools.acknowledge(shipment)
    return shipments


async def until(true: Callable[[], bool]) -> None:
    """Returns when this is true.

    Raises:
        TimeoutError: it does not become true.
    """
    async with asyncio.timeout(_PATIENCE_S):
        while not true():
            await asyncio.sleep(0.005)


async def drain(spools: ClickSpools, log: Log, *, done: Callable[[], bool]) -> None:
    """Sends until this is true."""

    def step() -> bool:
        send(spools, log)
        return done()

    await until(step)
