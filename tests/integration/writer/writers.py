"""Writers as processes that can be killed, stopped and started again, and what their group looks like from outside."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from chassis.clock import SystemClock
from chassis.kafka.admin import Admin
from contracts.topics import LINKS_EVENTS
from linkmesh.local.ports import free_port
from linkmesh.local.probes import http_get

ROOT = Path(__file__).parents[3]
GROUP = "database-writer"


class WriterProcess:
    """`python -m writer` in a seat of the group. A table endpoint of its own tells its statements from others'."""

    def __init__(self, seat: int, *, kafka: str, redis: str, dynamodb: str, log: Path) -> None:
        self.name = f"writer-{seat}"
        self.grpc_port, self.admin_port = free_port(), free_port()
        self.client_id = f"127.0.0.1:{self.grpc_port}"
        self._log = log / f"{self.name}.log"
        self._process: asyncio.subprocess.Process | None = None
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINKMESH_")}
        self._environment = inherited | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos/gen")]),
            "LINKMESH_KAFKA": kafka,
            "LINKMESH_REDIS": redis,
            "LINKMESH_DYNAMODB": dynamodb,
            "LINKMESH_HOST": "127.0.0.1",
            "LINKMESH_GRPC_PORT": str(self.grpc_port),
            "LINKMESH_ADMIN_PORT": str(self.admin_port),
            "LINKMESH_INSTANCE": str(seat),
            "LINKMESH_ENVIRONMENT": "development",
        }

    async def start(self) -> None:
        """Start it, again after its end; it joins when it can."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "writer", cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    async def started(self, timeout_s: float = 90) -> None:
        """Start it, and return when it says that it is ready: its seat may look taken from before."""
        await self.start()
        async with asyncio.timeout(timeout_s):
            while (await http_get(self.admin_port, "/readyz"))[0] != 200:
                await SystemClock().sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; it must be alive."""
        assert self._process is not None
        assert self._process.returncode is None, f"{self.name} has ended: {self._log.read_text()[-2000:]}"
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, unless it has ended or never ran, and wait; returns the exit code."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        async with asyncio.timeout(60):
            return await self._process.wait()


@contextlib.asynccontextmanager
async def none_left(*writers: WriterProcess) -> AsyncIterator[None]:
    """Whatever happens in the block, no process outlives it."""
    try:
        yield
    finally:
        for writer in writers:
            await writer.end(signal.SIGKILL)


async def shared_by(admin: Admin, *writers: WriterProcess, timeout_s: float = 60) -> Mapping[int, str]:
    """Wait until these and no others have all partitions, each at least one; returns who has which, by name."""
    names = {writer.client_id: writer.name for writer in writers}
    async with asyncio.timeout(timeout_s):
        while True:
            owners = await admin.group_members(GROUP)
            if len(owners) == LINKS_EVENTS.partitions and set(owners.values()) == set(names):
                return {tp.partition: names[client_id] for tp, client_id in owners.items()}
            await SystemClock().sleep(0.1)


async def caught_up(admin: Admin, *, timeout_s: float = 60) -> None:
    """Wait until the group has committed all there is."""
    clock = SystemClock()
    async with asyncio.timeout(timeout_s):
        while any(lag.records for lag in (await admin.lag(GROUP, [LINKS_EVENTS.name], now=clock.now())).values()):
            await clock.sleep(0.1)
