"""Which Kafka the commands speak to, and what a person is told when it does not answer."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linkmesh.cli.terminal import NOT_FOUND, fail, running_state

_VARIABLE = "LINKMESH_KAFKA"


def find_broker(state: Path) -> tuple[str, list[int]]:
    """Return Kafka's address and the admin ports of the services: LINKMESH_KAFKA, else the system that runs here.

    Raises:
        NotRunning: there is neither.
    """
    from linkmesh.local.control import ask

    quieten()
    if named := os.environ.get(_VARIABLE):
        return named, []
    about = ask(running_state(state), "status")
    addresses, ports = about["addresses"], about.get("admin_ports", {})
    assert isinstance(addresses, dict), "see LocalSystem.about"
    assert isinstance(ports, dict), "see LocalSystem.about"
    return str(addresses["kafka"]), list(ports.values())


def quieten() -> None:
    """Keep the Kafka library from writing lines of its own between ours: what went wrong is told once, by us."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@contextmanager
def explained(hint: str = "is it running? linkmesh status", code: int = NOT_FOUND) -> Iterator[None]:
    """End with a line instead of a stack when Kafka does not answer in the block."""
    from chassis.errors import Unavailable

    try:
        yield
    except Unavailable as error:
        fail(error.message, hint, code)
