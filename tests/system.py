"""The whole system for tests: real engines, all six services, free ports, a folder of its own.

    def test_something(system: RunningSystem) -> None:
        answer = httpx.get(f"{system.gateway}/{code}", trust_env=False)
        system.kill("writer")                  # kill -9; comes back after 0.5 s
        system.wait_ready("writer")
        system.kill("kafka", stay_down=True)   # an outage, until:
        system.start("kafka")
        system.collector.spans                 # every span so far, also `.trace(trace_id)`

`system` is shared by the session (start some 10 s): leave it as you found it, all up. `system.client()` is the REST
client with the development key; `system.api_key`, `system.gateway`, `system.pid(name)`, `system.address("kafka")`.
A test that must have one of its own, or other settings: `with started_system(tmp_path, settings={...}) as system`.
It runs in a thread with a loop of its own, so tests stay synchronous, or run their own loops.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from linkmesh.client import Client
from linkmesh.local.options import SERVICES, Options, choose_ports
from linkmesh.local.otlp_bridge import Collector
from linkmesh.local.supervisor import LocalSystem

Result = TypeVar("Result")
_CALL_TIMEOUT_S = 120.0


class RunningSystem:
    """A LocalSystem that lives in another thread, with the same verbs."""

    def __init__(self, system: LocalSystem, loop: asyncio.AbstractEventLoop, lines: list[str]) -> None:
        self.options = system.options
        self.lines = lines  # what the supervisor told a person
        self._system = system
        self._loop = loop

    @property
    def gateway(self) -> str:
        """The public address."""
        return self._system.gateway

    @property
    def api_key(self) -> str:
        """The development key."""
        return self._system.api_key

    @property
    def collector(self) -> Collector:
        """All spans so far."""
        return self._system.collector

    @property
    def state(self) -> Path:
        """The folder with data, logs, secrets."""
        return self.options.state

    def client(self, api_key: str = "") -> Client:
        """Return a REST client (a context manager), with the development key unless another is given."""
        return Client(self.gateway, api_key or self.api_key)

    def address(self, name: str) -> str:
        """Return the address of an engine: kafka, redis, dynamodb, zipkin."""
        addresses = self._system.about()["addresses"]
        assert isinstance(addresses, dict)
        return str(addresses[name])

    def admin(self, service: str) -> str:
        """Return the address of a service's /livez, /readyz and /metrics."""
        return f"http://127.0.0.1:{self.options.ports[f'{service}-admin']}"

    def log(self, name: str) -> str:
        """Return all a process has written."""
        return (self.state / "logs" / f"{name}.log").read_text(errors="replace")

    def pid(self, name: str) -> int:
        """Return a member's process id, 0 when it does not run."""
        return self._system.pid(name)

    def restarts(self, name: str) -> int:
        """Return how often a member was started again after a crash."""
        return self._system.restarts(name)

    def status(self) -> dict[str, str]:
        """Return the state of each member."""
        return {str(member["name"]): str(member["state"]) for member in self._run(self._system.status())}

    def kill(self, name: str, *, stay_down: bool = False) -> None:
        """kill -9."""
        self._call(lambda: self._system.kill(name, stay_down=stay_down))

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._call(lambda: self._system.pause(name))

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._call(lambda: self._system.resume(name))

    def stop(self, name: str) -> None:
        """End it well, and leave it down."""
        self._run(self._system.stop(name))

    def start(self, name: str) -> None:
        """Start it again and wait until it is ready."""
        self._run(self._system.start(name))

    def wait_ready(self, name: str, timeout_s: float = 30.0) -> None:
        """Return when a member is ready; TimeoutError otherwise."""
        self._run(self._system.wait_ready(name, timeout_s))

    def _run(self, coroutine: Coroutine[None, None, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_TIMEOUT_S)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        self._run(call())


@contextmanager
def started_system(
    state: Path, *, services: tuple[str, ...] = SERVICES, traces: bool = True, settings: Mapping[str, str] | None = None
) -> Iterator[RunningSystem]:
    """Start a system of one's own, and stop it well."""
    options = Options(
        state=state, ports=choose_ports(free=True), services=services, traces=traces, settings=settings or {}
    )
    started: Future[RunningSystem] = Future()
    over = threading.Event()

    async def live() -> None:
        lines: list[str] = []
        async with LocalSystem(options, lines.append) as system:
            started.set_result(RunningSystem(system, asyncio.get_running_loop(), lines))
            await asyncio.to_thread(over.wait)

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    # The children die with the thread that started them: this one lives as long as the system.
    thread = threading.Thread(target=run, name="system")
    thread.start()
    try:
        yield started.result()
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """The session's system."""
    with started_system(tmp_path_factory.mktemp("system")) as running:
        yield running
