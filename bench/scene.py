"""The system under test, pinned: who is on which core, which gateways there are, and the links they are asked for."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench import instances, links, nginx, peers, processes
from bench.instances import Instance
from bench.peers import Peer
from bench.rounds import LOAD_CORE, SERVER_CORE
from linkmesh.local.supervisor import LocalSystem

# On the servers' core; the rest works on the load generator's. Who works off a backlog there yields to the load; the
# broker takes clicks at the pace of the rounds, and the database answers misses.
_SERVERS = ("gateway", "link_service", "valkey")
_PROMPT = (*_SERVERS, "kafka", "dynamodb")

KEEPING: Mapping[str, str] = {"LINKMESH_SHIP_CLICKS": "false"}  # a gateway that records clicks and does not send them
_SPOOL_BYTES = 8 << 30  # of one that keeps the clicks of all rounds; a full spool drops clicks, which costs less


def variants(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """The settings of gateways beside the one that has everything on, each with one thing otherwise."""
    spool = {"LINKMESH_SPOOL_DIR": str(folder / "spool"), "LINKMESH_SPOOL_BYTES_MAX": str(_SPOOL_BYTES)}
    return {"answer": {**KEEPING, **spool}, "warm": {"LINKMESH_NEAR_LINKS_MAX": "0"}}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many links a row is about."""

    zipf: int
    warm: int
    cold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the targets need. `gateways`: all that run, by what is special about them; "hot" has everything on."""

    system: LocalSystem
    folder: Path
    sizes: Sizes
    gateways: Mapping[str, Instance]
    limits: Sequence[Peer] = field(default_factory=tuple)  # nginx, and the peers

    @property
    def redis(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.system.options.ports['redis']}/0"

    def pids(self, *names: str) -> Mapping[str, Sequence[int]]:
        """The processes of members, by name."""
        return {name: processes.family(self.system.pid(name)) for name in names}


def of_system(system: LocalSystem) -> Instance:
    """The gateway of the local system."""
    ports = system.options.ports
    return Instance("gateway", system.pid("gateway"), ports["gateway"], ports["gateway-grpc"], ports["gateway-admin"])


@contextlib.asynccontextmanager
async def pinned(
    system: LocalSystem, folder: Path, sizes: Sizes, scripts: Sequence[tuple[str, Path]]
) -> AsyncIterator[Scene]:
    """Starts the other gateways, nginx and the peers, and puts everybody in place."""
    async with AsyncExitStack() as stack:
        gateways = {"hot": of_system(system)}
        for name, settings in variants(folder).items():
            special = instances.running(system, "gateway", f"gateway-{name}", settings)
            gateways[name] = await stack.enter_async_context(special)
        limits: list[Peer] = []
        if nginx.available():
            (folder / "nginx").mkdir()
            url, master = await stack.enter_async_context(nginx.constant_redirect(folder / "nginx"))
            limits.append(Peer("nginx", f"{url}/abc", processes.family(master)))
        for name, script in scripts:
            limits.append(await stack.enter_async_context(peers.running(name, script, folder / f"peer-{name}")))
        for name in system.names:
            pids = processes.family(system.pid(name))
            processes.pin(pids, SERVER_CORE if name in _SERVERS else LOAD_CORE)
            if name not in _PROMPT:
                processes.yield_to_load(pids)
        for limit in limits:
            processes.pin(limit.pids, SERVER_CORE)
        processes.pin((each.pid for each in gateways.values()), SERVER_CORE)
        yield Scene(system=system, folder=folder, sizes=sizes, gateways=gateways, limits=limits)


async def make_link(system: LocalSystem, url: str = "https://example.com/") -> str:
    """The code of a new link, made as everybody makes one."""
    headers = {"authorization": f"Bearer {system.api_key}"}
    async with httpx.AsyncClient(base_url=system.gateway, headers=headers, timeout=5) as client:
        made = await client.post("/api/links", json={"long_url": url})
        return str(made.raise_for_status().json()["short_code"])


async def prepare_links(system: LocalSystem, sizes: Sizes) -> None:
    """Puts the links of the mix, the warm ones among them, into Redis, and the cold ones behind them into the table."""
    ports = system.options.ports
    await links.put_in_redis(f"redis://127.0.0.1:{ports['redis']}/0", range(max(sizes.zipf, sizes.warm)))
    await links.put_in_table(f"http://127.0.0.1:{ports['dynamodb']}", cold_numbers(sizes))


def cold_numbers(sizes: Sizes) -> range:
    """The links that are in the table only."""
    first = max(sizes.zipf, sizes.warm)
    return range(first, first + sizes.cold)
