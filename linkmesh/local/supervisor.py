"""The whole system on this machine: engines first, then topics and tables, then the services, each gated on health.

    async with LocalSystem(Options(state=folder, ports=choose_ports(free=True))) as system:
        system.kill("writer")            # it comes back by itself
        await system.stop("kafka")       # an outage that lasts
        await system.start("kafka")      # until here

Enter it in the main thread: the children die with the thread that started them (launch.py).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

from chassis.lifecycle import Component
from linkmesh.local.alone import only_one
from linkmesh.local.cache import Progress, Silent, fetch_all
from linkmesh.local.composition import addresses_of_engines, check_ports, engines_of, needed_files
from linkmesh.local.control import ControlServer
from linkmesh.local.development import Development, prepare_development
from linkmesh.local.errors import LocalError, first_local_error
from linkmesh.local.options import ENGINES, SERVICES, Options
from linkmesh.local.otlp_bridge import Collector, OtlpReceiver, ZipkinForwarder
from linkmesh.local.process import end_strays
from linkmesh.local.secret_files import make_secrets
from linkmesh.local.services import ServiceProcess, environments
from linkmesh.local.storage import ensure_tables, ensure_topics
from linkmesh.local.watch import Member, Report, Watch


class LocalSystem:
    """Engines and services of one state folder. An async context manager: entering returns when all is ready."""

    def __init__(self, options: Options, report: Report = lambda _line: None, progress: Progress | None = None) -> None:
        self.options = options
        self.collector = Collector()
        self.stop_asked = asyncio.Event()  # somebody (`linkmesh down`) wants it to end; whoever entered it obeys
        self.dev: Development | None = None
        self._report = report
        self._progress = progress or Silent()
        self.ready = False  # whether entering is over
        self._watches: dict[str, Watch] = {}
        self._context: AbstractAsyncContextManager[None] | None = None

    async def __aenter__(self) -> Self:
        """Start everything.

        Raises:
            LocalError: what stops it, in one line.
        """
        self._context = self._live()
        try:
            await self._context.__aenter__()
        except BaseExceptionGroup as group:
            if error := first_local_error(group):
                raise error from None  # one line for a person; the rest of the group is its echo
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Drain and stop everything, the gateway first, the engines last."""
        assert self._context is not None, "entered before it is left"
        return await self._context.__aexit__(kind, error, trace)

    @property
    def gateway(self) -> str:
        """The public address."""
        return f"http://127.0.0.1:{self.options.ports['gateway']}"

    @property
    def api_key(self) -> str:
        """The development key (premium)."""
        assert self.dev is not None, "made unless the options say seed=False"
        return self.dev.api_key

    @property
    def names(self) -> list[str]:
        """The names of all members, in the order of their start."""
        return list(self._watches)

    def pid(self, name: str) -> int:
        """Return a member's process id, 0 when it does not run."""
        return self._watch(name).member.pid or 0

    def restarts(self, name: str) -> int:
        """Return how often a member was started again after a crash."""
        return self._watch(name).restarts

    def kill(self, name: str, *, stay_down: bool = False) -> None:
        """kill -9 a member; it is started again after 0.5 s unless it is to stay down until `start`."""
        watch = self._watch(name)
        watch.hold_killed() if stay_down else watch.member.kill()

    def pause(self, name: str) -> None:
        """SIGSTOP a member: it hangs until `resume`."""
        self._watch(name).member.pause()

    def resume(self, name: str) -> None:
        """SIGCONT a member."""
        self._watch(name).member.resume()

    async def stop(self, name: str) -> None:
        """End a member well and leave it down until `start`."""
        await self._watch(name).hold()

    async def start(self, name: str) -> None:
        """Start a member that was stopped or killed, and return when it is ready."""
        await self._watch(name).release()

    async def wait_ready(self, name: str, timeout_s: float = 30.0) -> None:
        """Return when a member is ready.

        Raises:
            TimeoutError: it is not in time.
        """
        async with asyncio.timeout(timeout_s):
            while await self._watch(name).state() != "running":  # noqa: ASYNC110 - asked over the network
                await asyncio.sleep(0.05)

    async def status(self) -> list[dict[str, object]]:
        """Return for each member its name, state, pid and number of restarts."""
        return [
            {"name": name, "state": await watch.state(), "pid": watch.member.pid, "restarts": watch.restarts}
            for name, watch in self._watches.items()
        ]

    def about(self) -> dict[str, object]:
        """Return what a person is told at the start, and `linkmesh status` any time."""
        told: dict[str, object] = {"pid": os.getpid(), "ready": self.ready, "addresses": self._addresses()}
        told["admin_ports"] = {name: self.options.ports[f"{name}-admin"] for name in self.options.services}
        if self.dev is not None:
            told |= {"api_key": self.dev.api_key, "demo_code": self.dev.demo_code}
            if self.dev.demo_trace_id:
                page = f"http://127.0.0.1:{self.options.ports['zipkin']}/zipkin/traces/"
                told["demo_trace"] = page + self.dev.demo_trace_id
        return told

    def kill_all(self) -> None:
        """kill -9 everything, at once."""
        for watch in reversed(self._watches.values()):
            watch.hold_killed()

    def _watch(self, name: str) -> Watch:
        if name not in self._watches:
            raise LocalError(f"there is no {name} here", f"one of: {', '.join(self._watches)}")
        return self._watches[name]

    @contextlib.asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        """Hold everything open. What is entered last is left first: see the order of the lines."""
        async with AsyncExitStack() as stack:
            stack.enter_context(only_one(self.options.state))
            self._clear_away()
            await asyncio.to_thread(fetch_all, needed_files(self.options), self._progress)
            secret_files = make_secrets(self.options.state / "secrets")
            self._add_members(secret_files)
            await stack.enter_async_context(_running([ControlServer(self, self.options.state)]))
            stack.push_async_callback(self._stop_engines)
            await self._start_engines()
            await stack.enter_async_context(_running(self._bridge()))
            stack.push_async_callback(self._stop_services)
            await self._start_services()
            await stack.enter_async_context(_running(self._watches.values()))
            if self.options.seed and self.options.services:
                self.dev = await prepare_development(self.options, self.collector)
            self.ready = True
            yield

    def _clear_away(self) -> None:
        for stray in end_strays(self.options.state / "run"):
            self._report(f"ended {stray}, which an earlier run left behind")
        check_ports(self.options)

    def _add_members(self, secret_files: Mapping[str, str]) -> None:
        told = environments(self.options, secret_files)
        members: list[Member] = [
            *engines_of(self.options),
            *(ServiceProcess(name, self.options, told[name]) for name in self.options.services),
        ]
        self._watches = {member.name: Watch(member, self._report) for member in members}

    def _bridge(self) -> list[Component]:
        if not self.options.traces:
            return []
        ports = self.options.ports
        forwarder = ZipkinForwarder(self.collector, f"http://127.0.0.1:{ports['zipkin']}")
        return [OtlpReceiver(self.collector, port=ports["otlp"]), forwarder]

    async def _start_engines(self) -> None:
        engines = self._members(ENGINES)
        began = time.monotonic()
        await _together(engine.start() for engine in engines)
        names = ", ".join(engine.name for engine in engines) or "external"
        self._report(f"engines ready in {time.monotonic() - began:.1f} s: {names}")
        kafka, dynamodb = addresses_of_engines(self.options)
        await _together([ensure_topics(kafka), *([ensure_tables(dynamodb)] if dynamodb else [])])

    async def _start_services(self) -> None:
        began = time.monotonic()
        await _together(service.start() for service in self._members(SERVICES) if service.name != "gateway")
        await _together(service.start() for service in self._members(("gateway",)))
        if self.options.services:
            self._report(f"services ready in {time.monotonic() - began:.1f} s: {', '.join(self.options.services)}")

    async def _stop_services(self) -> None:
        """The gateway first, so that nobody is let in; then who it called; then those who only consume."""
        for names in (("gateway",), ("link_service",), SERVICES):
            await _together(member.stop() for member in self._members(names) if member.running)

    async def _stop_engines(self) -> None:
        await _together(member.stop() for member in self._members(ENGINES))

    def _addresses(self) -> dict[str, str]:
        kafka, dynamodb = addresses_of_engines(self.options)
        found = {"gateway": self.gateway} if self.options.services else {}
        found |= {"kafka": kafka, "dynamodb": dynamodb}
        if self.options.engines == "own":
            found["redis"] = f"redis://127.0.0.1:{self.options.ports['redis']}/0"
        return found | ({"zipkin": f"http://127.0.0.1:{self.options.ports['zipkin']}"} if self.options.traces else {})

    def _members(self, names: Iterable[str]) -> list[Member]:
        return [self._watches[name].member for name in names if name in self._watches]


@contextlib.asynccontextmanager
async def _running(components: Iterable[Component]) -> AsyncIterator[None]:
    """Run components while the block lasts; a failing one ends the block."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for component in components:
            tasks.create_task(component.run(stop), name=type(component).__name__)
        try:
            yield
        finally:
            stop.set()


async def _together(steps: Iterable[Coroutine[None, None, object]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for step in steps:
            tasks.create_task(step)
