"""make bench: interleaved rounds against nginx and Linkmesh, servers on one core, the load on another.

python -m bench [--rounds 5] [--duration 4] [--tries 50] [--no-write]
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import load, nginx, processes, report
from bench.journeys import measure
from bench.persisted import persisted
from linkmesh.local.options import Options, choose_ports
from linkmesh.local.supervisor import LocalSystem

SERVER_CORE, LOAD_CORE = 0, 1
_COUNT_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """What a round is run against, and whose CPU counts."""

    name: str
    url: str
    servers: Mapping[str, Sequence[int]]
    connections: int
    headers: dict[str, str]
    script: Path | None = None

    @property
    def pids(self) -> Sequence[int]:
        """All of them."""
        return [pid for pids in self.servers.values() for pid in pids]


def main() -> int:
    """Runs everything that can be run here; returns 1 if requests failed or clicks went missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=int, default=4, help="seconds of a round")
    parser.add_argument("--tries", type=int, default=50, help="journeys")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.stderr.write("bench: two cores are needed, one for the servers and one for the load\n")
        return 1
    if not load.available():
        sys.stderr.write("bench: wrk and taskset are needed (Debian: wrk, util-linux); only journeys are measured\n")
    if not nginx.available():
        sys.stderr.write("bench: nginx is not installed; there is nothing to compare with\n")
    return asyncio.run(_bench(options))


async def _bench(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        local = Options(
            state=Path(folder) / "state", ports=choose_ports(free=True), traces=False, throughput=True,
            settings={"LINKMESH_ENVIRONMENT": "production"},
        )  # fmt: skip
        async with LocalSystem(local, report=lambda line: print(line, file=sys.stderr)) as system:
            dynamodb = f"http://127.0.0.1:{local.ports['dynamodb']}"
            journeys = await measure(system.gateway, system.api_key, dynamodb, tries=options.tries)
            rows = await _load(system, Path(folder), options) if load.available() else []
    print(report.text(rows, journeys))
    if not options.no_write:
        method = {"rounds": options.rounds, "duration_s": options.duration, "tries": options.tries}
        report.write(rows, journeys, method)
    short = [row.name for row in rows if row.errors or (row.counted is not None and row.counted < row.answered)]
    for name in short:
        sys.stderr.write(f"bench: {name} had errors, or did not count what it answered\n")
    return 1 if short else 0


async def _load(system: LocalSystem, folder: Path, options: argparse.Namespace) -> list[report.Row]:
    code = await _hot_link(system)
    servers = {name: processes.family(system.pid(name)) for name in ("gateway", "link_service", "valkey")}
    others = [name for name in system.names if name not in servers]
    for name in others:
        processes.pin(processes.family(system.pid(name)), LOAD_CORE)
        processes.yield_to_load(processes.family(system.pid(name)))
    for pids in servers.values():
        processes.pin(pids, SERVER_CORE)
    bearer = {"Authorization": f"Bearer {system.api_key}"}
    script = Path(__file__).with_name("create.lua")
    links = f"{system.gateway}/api/links"
    targets = [
        Target("linkmesh-warm", f"{system.gateway}/{code}", {"gateway": servers["gateway"]}, 32, load.BROWSER),
        Target("create-16", links, servers, 16, bearer, script),
        Target("create-64", links, servers, 64, bearer, script),
    ]
    rounds: dict[str, list[report.Round]] = {}
    if nginx.available():
        async with nginx.constant_redirect(folder) as (url, master):
            pids = processes.family(master)
            processes.pin(pids, SERVER_CORE)
            await _rounds(
                [Target("nginx", f"{url}/{code}", {"nginx": pids}, 32, load.BROWSER), *targets], rounds, options
            )
    else:
        await _rounds(targets, rounds, options)
    answered = {name: sum(item.answered for item in runs) for name, runs in rounds.items()}
    counted: dict[str, int] = {"linkmesh-warm": await _counted(system, code, answered["linkmesh-warm"])}
    dynamodb = f"http://127.0.0.1:{system.options.ports['dynamodb']}"
    for name in ("create-16", "create-64"):
        counted[name] = await persisted(dynamodb, name, answered[name])
        print(f"{name}: acknowledged {answered[name]}, persisted {counted[name]}", file=sys.stderr)
    return [report.summarise(name, runs, counted.get(name)) for name, runs in rounds.items()]


async def _rounds(
    targets: Sequence[Target], rounds: dict[str, list[report.Round]], options: argparse.Namespace
) -> None:
    """Every target in turn, so that a noisy minute of the machine hits all of them."""
    for number in range(options.rounds):
        for target in targets:
            before_s = {name: processes.cpu_s(pids) for name, pids in target.servers.items()}
            result = await load.run(
                target.url,
                connections=target.connections,
                duration_s=options.duration,
                core=LOAD_CORE,
                headers=target.headers,
                script=target.script,
                arguments=[target.name] if target.script else (),
            )
            used_us = {
                name: 1e6 * (processes.cpu_s(pids) - before_s[name]) / max(1, result.requests)
                for name, pids in target.servers.items()
            }
            measured = report.Round(
                rps=result.rps,
                cpu_us=sum(used_us.values()),
                p50_ms=result.p50_ms,
                p99_ms=result.p99_ms,
                rss_mb=processes.resident_mb(target.pids),
                answered=result.requests if result.created is None else result.created,
                errors=result.errors,
                parts_us=used_us if len(used_us) > 1 else {},
            )
            rounds.setdefault(target.name, []).append(measured)
            print(f"round {number + 1}: {target.name} {measured.rps:,.0f}/s, {measured.cpu_us:.1f} µs", file=sys.stderr)


async def _hot_link(system: LocalSystem) -> str:
    headers = {"authorization": f"Bearer {system.api_key}"}
    async with httpx.AsyncClient(base_url=system.gateway, headers=headers, timeout=5) as client:
        made = await client.post("/api/links", json={"long_url": "https://example.com/"})
        return str(made.raise_for_status().json()["short_code"])


async def _counted(system: LocalSystem, code: str, answered: int) -> int:
    """The clicks in the statistics, once all that were answered have had time to arrive there."""
    headers = {"authorization": f"Bearer {system.api_key}"}
    counted = 0
    async with httpx.AsyncClient(base_url=system.gateway, headers=headers, timeout=5) as client:
        for _ in range(int(_COUNT_PATIENCE_S)):
            stats = await client.get(f"/api/links/{code}/stats")
            if stats.status_code == 200:  # 503 and 504 while the other processes catch up on their one core
                counted = int(stats.json()["clicks"]["total"])
            if counted >= answered:
                break
            await asyncio.sleep(1)
    return counted


if __name__ == "__main__":
    sys.exit(main())
