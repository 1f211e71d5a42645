"""The six services as child processes: what each is told, and whether it is ready."""

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping

from chassis.clock import SystemClock
from chassis.config import PREFIX, ProcessConfig, variables
from linkmesh.local.errors import LocalError
from linkmesh.local.fetchers import MIRROR_VARIABLE
from linkmesh.local.options import SERVICES, Options
from linkmesh.local.probes import http_get
from linkmesh.local.process import POLL_S, ChildProcess, Program

READY_TIMEOUT_S = 60.0
GRACE_S = 20.0  # what services are given to drain, above the gateway's worst case of 16 s
_STOP_TIMEOUT_S = GRACE_S + 3
_OF_THE_CLI = {"LINKMESH_API_KEY", "LINKMESH_GATEWAY", MIRROR_VARIABLE}
_DEFAULTS = {
    "LINKMESH_ENVIRONMENT": "development",
    "LINKMESH_TRACE_RATIO": "1",
    "LINKMESH_GRACE_S": str(GRACE_S),
    "LINKMESH_INSTANCE": "0",
    "LINKMESH_WEBHOOK_HTTP_HOSTS": "127.0.0.1,localhost",  # so that a first webhook can be tried on this machine
}


class ServiceProcess:
    """One service, `python -m <name>`, with its admin port as the place to ask whether it is ready."""

    def __init__(self, name: str, options: Options, environment: Mapping[str, str]) -> None:
        self.name = name
        self.admin_port = options.ports[f"{name}-admin"]
        state = options.state
        self._process = ChildProcess(
            Program(
                name=name,
                command=[sys.executable, "-m", name],
                environment=environment,
                folder=state,
                log=state / "logs" / f"{name}.log",
                pid_file=state / "run" / f"{name}.pid",
            )
        )

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process.running

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it runs."""
        return self._process.exit_code

    async def launch(self) -> None:
        """Start the process; do not wait until it is ready."""
        self._process.start()

    async def is_ready(self) -> bool:
        """Whether it says so on its admin port."""
        return (await http_get(self.admin_port, "/readyz"))[0] == 200

    async def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start it and return when it is ready.

        Raises:
            LocalError: it ended, or was not ready in time; the error says what it waits for.
        """
        if not self.running:
            await self.launch()
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() < deadline:
            if await self.is_ready():
                return
            await SystemClock().sleep(POLL_S)
        hint = f"see {self._process.program.log}"
        if not self.running:
            tail = self._process.log_tail()
            raise LocalError(f"{self.name} ended with {self.exit_code}; the end of its log:\n{tail}", hint)
        raise LocalError(f"{self.name} is not ready after {timeout_s:.0f} s: {await self._reasons()}", hint)

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.resume()

    async def stop(self) -> None:
        """Let it drain (SIGTERM), kill it when that takes too long."""
        await self._process.stop(_STOP_TIMEOUT_S)

    async def _reasons(self) -> str:
        status, body = await http_get(self.admin_port, "/readyz")
        if not status:
            return "its admin port does not answer"
        try:
            reasons: dict[str, str] = json.loads(body)["reasons"]
        except (ValueError, KeyError):
            return f"its admin port answers {status}"
        return ", ".join(f"{name}: {reason}" for name, reason in reasons.items())


def config_of(service: str) -> type[ProcessConfig]:
    """Return a service's configuration class, the list of what it may be told."""
    config = importlib.import_module(f"{service}.config").Config
    assert isinstance(config, type), "every service has a class of this name"
    assert issubclass(config, ProcessConfig), "and it is one of these"
    return config


def environments(options: Options, secret_files: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the whole environment of each service: the user's, with exactly the LINKMESH_* names its Config knows.

    Raises:
        LocalError: the user set a name that no service knows, or one that is decided here.
    """
    shared = _addresses(options) | dict(secret_files)
    known = {service: variables(config_of(service)) for service in options.services}
    if known:
        _refuse(options.settings, shared, frozenset().union(*known.values()))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    inherited["PYTHONUNBUFFERED"] = "1"
    return {
        service: inherited | _only(_DEFAULTS | dict(options.settings) | shared | _own(service, options), known[service])
        for service in options.services
    }


def _addresses(options: Options) -> dict[str, str]:
    """What all processes agree on."""
    ports = options.ports
    found = {f"LINKMESH_{name.upper()}": f"127.0.0.1:{ports[f'{name}-grpc']}" for name in SERVICES}
    found |= {
        "LINKMESH_HOST": "127.0.0.1",
        "LINKMESH_PUBLIC_URL": f"http://127.0.0.1:{ports['gateway']}",
        "LINKMESH_OTLP_ENDPOINT": f"http://127.0.0.1:{ports['otlp']}" if options.traces else "",
        "LINKMESH_AUDIT_DIR": str(options.state / "data" / "audit"),
        "LINKMESH_SPOOL_DIR": str(options.state / "data" / "spool"),
    }
    if options.engines == "own":
        found |= {
            "LINKMESH_KAFKA": f"127.0.0.1:{ports['kafka']}",
            "LINKMESH_REDIS": f"redis://127.0.0.1:{ports['redis']}/0",
            "LINKMESH_DYNAMODB": f"http://127.0.0.1:{ports['dynamodb']}",
        }
    return found


def _own(service: str, options: Options) -> dict[str, str]:
    """What one process alone is told."""
    return {
        "LINKMESH_GRPC_PORT": str(options.ports[f"{service}-grpc"]),
        "LINKMESH_ADMIN_PORT": str(options.ports[f"{service}-admin"]),
        "LINKMESH_HTTP_PORT": str(options.ports["gateway"]),
    }


def _only(settings: Mapping[str, str], known: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name in known}


def _refuse(settings: Mapping[str, str], decided: Mapping[str, str], known: frozenset[str]) -> None:
    for name in sorted(set(settings) - _OF_THE_CLI):
        if name in decided or name.endswith("_PORT"):
            raise LocalError(f"{name} is set, but `linkmesh up` decides it", "unset it; see --port, --engines external")
        if name not in known:
            raise LocalError(f"{name} is set, but no service has such a setting", "unset it; see docs/CONTRACTS.md")
