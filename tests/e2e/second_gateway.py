"""Another gateway beside the system's own, as a balancer would have."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from linkmesh.local.ports import free_port
from linkmesh.local.services import ServiceProcess, environments
from tests.system import RunningSystem


@contextmanager
def second_gateway(system: RunningSystem, folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Its address, while it runs; it has the system's secrets, peers and engines, and ports of its own."""
    options = system.options
    secrets = {
        f"LINKMESH_{path.name.replace('-', '_').upper()}_FILE": str(path)
        for path in (options.state / "secrets").iterdir()
    }
    ports = dict(options.ports) | {name: free_port() for name in ("gateway", "gateway-grpc", "gateway-admin")}
    own = replace(options, ports=ports, services=("gateway",), state=folder)
    told = environments(own, secrets)["gateway"]
    told |= {"LINKMESH_INSTANCE": "1", "LINKMESH_PUBLIC_URL": system.gateway, "LINKMESH_OTLP_ENDPOINT": ""}
    told |= settings or {}
    process = ServiceProcess("gateway", own, told)
    started, over = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def live() -> None:  # a child dies with the thread that started it
        try:
            asyncio.run(process.start())
        except BaseException as error:  # noqa: BLE001 (raised by the test)
            failures.append(error)
        started.set()
        over.wait()
        asyncio.run(process.stop())

    thread = threading.Thread(target=live, name="second gateway")
    thread.start()
    try:
        started.wait()
        assert not failures, failures
        yield f"http://127.0.0.1:{ports['gateway']}"
    finally:
        over.set()
        thread.join()
