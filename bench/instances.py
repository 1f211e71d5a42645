"""Further processes of a service beside those of the local system, with settings of their own."""

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis.clock import SystemClock
from chassis.config import variables
from linkmesh.local.ports import free_port
from linkmesh.local.probes import http_get
from linkmesh.local.process import POLL_S, ChildProcess, Program
from linkmesh.local.services import GRACE_S, config_of, environments
from linkmesh.local.supervisor import LocalSystem

_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Instance:
    """A process that runs. `port`: the public one of a gateway; `settings`: what it was told beyond the others."""

    name: str
    pid: int
    port: int
    grpc_port: int
    admin_port: int

    @property
    def url(self) -> str:
        """The public address of a gateway."""
        return f"http://127.0.0.1:{self.port}"


def unknown_settings(service: str, settings: Mapping[str, str]) -> list[str]:
    """The names among these that the service does not have."""
    return sorted(set(settings) - variables(config_of(service)))


@contextlib.asynccontextmanager
async def running(system: LocalSystem, service: str, name: str, settings: Mapping[str, str]) -> AsyncIterator[Instance]:
    """A further process of a service on ports of its own, ready; ended well on the way out.

    Raises:
        RuntimeError: it does not become ready, or has no such setting; the end of its log is told.
    """
    if unknown := unknown_settings(service, settings):
        raise RuntimeError(f"{service} has no {', '.join(unknown)}")
    instance = Instance(name, 0, free_port(), free_port(), free_port())
    process = ChildProcess(_program(system, service, instance, settings))
    process.start()
    try:
        await _ready(process, instance)
        yield Instance(name, process.pid or 0, instance.port, instance.grpc_port, instance.admin_port)
    finally:
        await process.stop(GRACE_S + 3)


def _program(system: LocalSystem, service: str, instance: Instance, settings: Mapping[str, str]) -> Program:
    state = system.options.state
    told = dict(environments(system.options, _secret_files(state))[service])
    told |= {
        "LINKMESH_HTTP_PORT": str(instance.port),
        "LINKMESH_GRPC_PORT": str(instance.grpc_port),
        "LINKMESH_ADMIN_PORT": str(instance.admin_port),
        "LINKMESH_INSTANCE": instance.name,
        **settings,
    }
    return Program(
        name=instance.name,
        command=[sys.executable, "-m", service],
        environment={key: value for key, value in told.items() if _is_known(service, key)},
        folder=state,
        log=state / "logs" / f"{instance.name}.log",
        pid_file=state / "run" / f"{instance.name}.pid",
    )


def _is_known(service: str, variable: str) -> bool:
    return not variable.startswith("LINKMESH_") or variable in variables(config_of(service))


def _secret_files(state: Path) -> dict[str, str]:
    """The settings that name the secrets which the system has already made."""
    folder = state / "secrets"
    return {f"LINKMESH_{path.name.replace('-', '_').upper()}_FILE": str(path) for path in folder.iterdir()}


async def _ready(process: ChildProcess, instance: Instance) -> None:
    deadline = time.monotonic() + _READY_S
    while process.running and time.monotonic() < deadline:
        if (await http_get(instance.admin_port, "/readyz"))[0] == 200:
            return
        await SystemClock().sleep(POLL_S)
    raise RuntimeError(f"{instance.name} is not ready:\n{process.log_tail()}")
