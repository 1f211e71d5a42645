"""What `linkmesh up` may be told, and the ports of everything it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from linkmesh.local.errors import LocalError
from linkmesh.local.ports import free_port

# In the order in which they start; the gateway, which lets people in, is last in and first out.
SERVICES = ("link_service", "writer", "analytics", "webhook", "audit", "gateway")
ENGINES = ("valkey", "dynamodb", "kafka", "zipkin")

PORTS: Mapping[str, int] = {
    "gateway": 8080,
    "gateway-grpc": 7000,
    "link_service-grpc": 7001,
    "writer-grpc": 7003,
    "analytics-grpc": 7004,
    "webhook-grpc": 7005,
    "audit-grpc": 7006,
    "gateway-admin": 9100,
    "link_service-admin": 9101,
    "writer-admin": 9103,
    "analytics-admin": 9104,
    "webhook-admin": 9105,
    "audit-admin": 9106,
    "kafka": 9092,
    "kafka-controller": 9093,
    "redis": 6379,
    "dynamodb": 8000,
    "zipkin": 9411,
    "otlp": 4318,
}
_PORT_MAX = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run the system. `services` may be empty: then only the engines run, with their topics and tables."""

    state: Path  # data, logs, secrets, pid files, dev.json
    ports: Mapping[str, int] = field(default_factory=lambda: dict(PORTS))
    services: tuple[str, ...] = SERVICES
    engines: Literal["own", "external"] = "own"  # external: LINKMESH_KAFKA, LINKMESH_REDIS, LINKMESH_DYNAMODB say where
    traces: bool = True  # Zipkin and the way to it
    seed: bool = True  # make the development key and the demo link
    throughput: bool = False  # let the broker's JVM optimise fully: slower to start, faster under load
    settings: Mapping[str, str] = field(default_factory=dict)  # LINKMESH_* of the user


def choose_ports(*, moved: Mapping[str, int] | None = None, offset: int = 0, free: bool = False) -> dict[str, int]:
    """Return the port of everything: the usual ones moved by `offset`, or all free ones; `moved` wins over both.

    Raises:
        LocalError: a name or number is impossible, or two things would share a port.
    """
    moved = moved or {}
    if unknown := sorted(set(moved) - set(PORTS)):
        raise LocalError(f"there is no port named {unknown[0]}", f"one of: {', '.join(PORTS)}")
    ports = {name: moved.get(name) or (free_port() if free else usual + offset) for name, usual in PORTS.items()}
    for name, port in ports.items():
        if not 1024 <= port <= _PORT_MAX:
            raise LocalError(f"port {port} of {name} is outside 1024..{_PORT_MAX}")
    if len(set(ports.values())) < len(ports):
        twice = next(name for name, port in ports.items() if list(ports.values()).count(port) > 1)
        raise LocalError(f"port {ports[twice]} of {twice} is given to something else, too")
    return ports
