"""The whole system with more than one of what can be more than one: two gateways, each with a link_service of its own,
two writers, and room for a third that comes and goes.

Engines are linkmesh.local's; services are the same programs with the same settings as `linkmesh up` gives them, each
kept alive by linkmesh.local's own watch.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from chassis.config import variables
from linkmesh.local.development import make_key
from linkmesh.local.options import ENGINES, SERVICES, Options, choose_ports
from linkmesh.local.ports import free_port
from linkmesh.local.process import ChildProcess, Program
from linkmesh.local.services import ServiceProcess, config_of, environments
from linkmesh.local.supervisor import LocalSystem
from linkmesh.local.watch import Watch

_SKEWED = Path(__file__).with_name("skewed.py")
_ROOT = Path(__file__).parents[2]
GATEWAYS = ("gateway", "gateway-2")
LINK_SERVICES = ("link_service", "link_service-2")
WRITERS = ("writer", "writer-2")
GUEST = "writer-3"
SETTINGS = {
    "LINKMESH_LEASE_S": "8",  # of a delivery's claim: a hang of 10 s outlives it
    "LINKMESH_ATTEMPT_TIMEOUT_S": "5",
}


class Instance(ServiceProcess):
    """A service under a name of its own. `skew_s` is how wrong its clock is from its next start on."""

    def __init__(self, name: str, service: str, options: Options, environment: Mapping[str, str]) -> None:
        super().__init__(service, options, environment)
        self.name = name
        self.skew_s = 0.0
        self.environment = dict(environment)
        self._service = service
        self._state = options.state
        self._process = ChildProcess(self._program())

    async def launch(self) -> None:
        """Start it, with the clock it is to have."""
        self._process = ChildProcess(self._program())
        self._process.start()

    def _program(self) -> Program:
        skewed = [str(_SKEWED), str(self.skew_s), self._service]
        path = {"PYTHONPATH": f"{_ROOT}:{_ROOT / 'protos' / 'gen'}"}
        return Program(
            name=self.name,
            command=[sys.executable, *(skewed if self.skew_s else ["-m", self._service])],
            environment=self.environment | path,
            folder=self._state,
            log=self._state / "logs" / f"{self.name}.log",
            pid_file=self._state / "run" / f"{self.name}.pid",
        )


class Deployment:
    """All processes by name: what kills, stops, starts and asks them."""

    def __init__(self, system: LocalSystem, services: Mapping[str, Instance], lines: list[str]) -> None:
        self.state = system.options.state
        self.lines = lines  # what a person would have been told
        self.services = services
        self.watches = {name: Watch(instance, lines.append) for name, instance in services.items()}
        self._system = system

    @property
    def kafka(self) -> str:
        """The broker's address."""
        return f"127.0.0.1:{self._system.options.ports['kafka']}"

    @property
    def dynamodb(self) -> str:
        """The database's endpoint."""
        return f"http://127.0.0.1:{self._system.options.ports['dynamodb']}"

    @property
    def redis_port(self) -> int:
        """Where Redis listens."""
        return self._system.options.ports["redis"]

    def gateway(self, number: int) -> str:
        """The public address of a gateway."""
        return f"http://127.0.0.1:{self._port(GATEWAYS[number], 'http')}"

    def admin_port(self, name: str) -> int:
        """Where a service answers /readyz and /metrics."""
        return self.services[name].admin_port

    def admin_ports(self) -> list[int]:
        """Of all services that run."""
        return [instance.admin_port for instance in self.services.values() if instance.running]

    def pid(self, name: str) -> int:
        """Its process id; 0 when it does not run."""
        return self._system.pid(name) if name in ENGINES else self.services[name].pid or 0

    def kill(self, name: str, *, stay_down: bool = False) -> None:
        """kill -9; it comes back by itself, or at `start`."""
        if name in ENGINES:
            self._system.kill(name, stay_down=stay_down)
        elif stay_down:
            self.watches[name].hold_killed()
        else:
            self.services[name].kill()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._system.pause(name) if name in ENGINES else self.services[name].pause()

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._system.resume(name) if name in ENGINES else self.services[name].resume()

    async def stop(self, name: str) -> None:
        """SIGTERM, and down until `start`."""
        await (self._system.stop(name) if name in ENGINES else self.watches[name].hold())

    async def start(self, name: str) -> None:
        """Start what is down, and return when it is ready."""
        await (self._system.start(name) if name in ENGINES else self.watches[name].release())

    async def is_ready(self, name: str) -> bool:
        """Whether it serves."""
        if name in ENGINES:
            return {member["name"]: member["state"] for member in await self._system.status()}[name] == "running"
        return self.services[name].running and await self.services[name].is_ready()

    async def new_key(self, user: str) -> str:
        """An API key of a premium account."""
        link_service = f"127.0.0.1:{self._port('link_service', 'grpc')}"
        return await make_key(self.state, link_service, user, premium=True)

    def _port(self, name: str, kind: str) -> int:
        return int(self.services[name].environment[f"LINKMESH_{kind.upper()}_PORT"])


@contextlib.asynccontextmanager
async def deployed(state: Path) -> AsyncIterator[Deployment]:
    """Start everything in a folder of its own; stop it well. Enter it in the main thread."""
    lines: list[str] = []
    options = Options(state=state, ports=choose_ports(free=True), services=(), traces=False, seed=False)
    async with LocalSystem(options, lines.append) as system:
        deployment = Deployment(system, _services(options), lines)
        deployment.watches[GUEST].held = True  # until it is asked in
        try:
            await _together(deployment, [name for name in deployment.services if name not in (*GATEWAYS, GUEST)])
            await _together(deployment, GATEWAYS)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for watch in deployment.watches.values():
                    tasks.create_task(watch.run(stop))
                try:
                    yield deployment
                finally:
                    stop.set()
        finally:
            await _end(deployment)


def _services(options: Options) -> dict[str, Instance]:
    """All instances. The second gateway asks the second link_service; but for that all know the same addresses."""
    secret_files = {
        f"LINKMESH_{path.name.replace('-', '_').upper()}_FILE": str(path)
        for path in (options.state / "secrets").iterdir()
    }
    public_url = {"LINKMESH_PUBLIC_URL": f"http://127.0.0.1:{options.ports['gateway']}"}
    found: dict[str, Instance] = {}
    second_ports = dict(options.ports)
    for name in (*SERVICES[:-1], LINK_SERVICES[1], WRITERS[1], GUEST, *GATEWAYS):
        service, _, number = name.partition("-")
        ports = second_ports if number else dict(options.ports)
        if number:
            ports |= {f"{service}-{kind}": free_port() for kind in ("grpc", "admin")}
            ports |= {"gateway": free_port()}
        instance = str(int(number or 1) - 1)
        told = replace(
            options, ports=ports, services=(service,), settings=_known(service) | {"LINKMESH_INSTANCE": instance}
        )
        environment = environments(told, secret_files)[service]
        if "LINKMESH_PUBLIC_URL" in environment:
            environment |= public_url
        found[name] = Instance(name, service, told, environment)
    return found


def _known(service: str) -> dict[str, str]:
    return {name: value for name, value in SETTINGS.items() if name in variables(config_of(service))}


async def _together(deployment: Deployment, names: Iterable[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(deployment.services[name].start())


async def _end(deployment: Deployment) -> None:
    """The gateways first, then who they called, then the rest."""
    for names in (GATEWAYS, LINK_SERVICES, tuple(deployment.services)):
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(deployment.services[name].stop())
