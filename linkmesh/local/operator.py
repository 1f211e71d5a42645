"""Ways into a system for its operator: as the owner of its state folder, or with a key that has the scope `operate`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from chassis.auth import SUPERVISOR
from chassis.config import read_secret
from chassis.grpc_client import open_channel
from contracts.scopes import OPERATE
from shortener.key.v1.key_service_pb2 import Principal

OPERATOR = Principal(user_id="operator", scopes=[OPERATE])  # who the owner says to be


@asynccontextmanager
async def owner_channel(state: Path, target: str, *, peer: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `peer` at host:port `target`, of one who holds the mesh secret of the system in the state folder.

    Raises:
        ConfigError: the folder has no such secret.
    """
    secret = read_secret(state / "secrets" / "mesh-secret")
    async with open_channel(target, peer=peer, process=SUPERVISOR, mesh_secret=secret) as channel:
        yield channel


def bearer(api_key: str) -> tuple[tuple[str, str]]:
    """The metadata of a call with an API key."""
    return (("authorization", f"Bearer {api_key}"),)
