"""Why a service is not ready: what it says itself."""

import asyncio
import json
from collections.abc import Mapping

from linkmesh.local.probes import http_get


def reasons(about: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Return what keeps each service from being ready, by condition, in the system that told this about itself; one
    that is ready, hangs or is gone is left out."""
    ports = about.get("admin_ports")
    return asyncio.run(_ask(ports)) if isinstance(ports, dict) else {}


async def _ask(ports: Mapping[str, int]) -> dict[str, dict[str, str]]:
    async with asyncio.TaskGroup() as tasks:
        asked = {name: tasks.create_task(http_get(port, "/readyz")) for name, port in ports.items()}
    told = {name: _reasons(*task.result()) for name, task in asked.items()}
    return {name: why for name, why in told.items() if why}


def _reasons(status: int, body: bytes) -> dict[str, str]:
    if status != 503:
        return {}
    try:
        told = json.loads(body)["reasons"]
        return {str(condition): str(why) for condition, why in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
