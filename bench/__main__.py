"""make bench: nginx and every way Linkmesh answers, in interleaved rounds, servers on one core, the load on another.

python -m bench [--rounds 9] [--duration 2] [--steady 15] [--links 1000000] [--tries 50] [--peer name=script]
                [--no-write]
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import counted, exact, fixed, journeys, load, nginx, page, peers, processes, rounds, scene, steady, targets
from bench.journeys import Journey
from bench.report import Row, summarise
from bench.scene import Sizes
from bench.steady import HalfLoad
from linkmesh.local.options import Options, choose_ports
from linkmesh.local.supervisor import LocalSystem

_CREATE_ROUNDS = 3  # each link made has to be stored behind them
_BEGAN = time.monotonic()
_WARM, _COLD = 20_000, 2_000


@dataclass
class Figures:
    """What was measured; empty where something for it is missing."""

    rows: list[Row] = field(default_factory=list)
    half: list[HalfLoad] = field(default_factory=list)
    ways: list[Journey] = field(default_factory=list)
    dropped: int = 0  # clicks that a gateway had no room for, in the rounds
    restarted: list[str] = field(default_factory=list)  # who ended during the run


def main() -> int:
    """Runs everything that can be run here; returns 1 if requests failed, or were not counted exactly."""
    options = _options()
    if (os.cpu_count() or 1) < 2:
        sys.stderr.write("bench: two cores are needed, one for the servers and one for the load\n")
        return 1
    for present, told in (
        (load.available(), "wrk and taskset are not installed (Debian: wrk, util-linux): no rows but linkmesh-10k"),
        (nginx.available(), "nginx is not installed (Debian: nginx-light): there is nothing to compare with"),
        (fixed.available(), "h2load is not installed (Debian: nghttp2-client): its fixed counts come from bench.paced"),
    ):
        if not present:
            sys.stderr.write(f"bench: {told}\n")
    figures = asyncio.run(_bench(options))
    method = {"rounds": options.rounds, "duration_s": options.duration, "steady_s": options.steady}
    method |= {"links": options.links, "tries": options.tries}
    print(page.text(figures.rows, figures.half, figures.ways))
    if not options.no_write:
        page.write(figures.rows, figures.half, figures.ways, method)
    bad = [row for row in figures.rows if not row.good]
    for row in bad:
        told = f"{row.errors} errors, answered {row.answered}, counted {row.counted}"
        sys.stderr.write(f"bench: {row.name} is not as it should be: {told}\n")
    if figures.dropped:
        sys.stderr.write(f"bench: {figures.dropped} clicks of the rounds were dropped, which made them cheaper\n")
    for name in figures.restarted:
        sys.stderr.write(f"bench: {name} ended during the run and was started again\n")
    return 1 if bad or figures.dropped or figures.restarted else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--duration", type=int, default=2, help="seconds of a round")
    parser.add_argument("--steady", type=float, default=15, help="seconds at 10 000 redirects a second")
    parser.add_argument("--links", type=int, default=1_000_000, help="of the mix")
    parser.add_argument("--tries", type=int, default=50, help="journeys")
    parser.add_argument("--peer", action="append", default=[], help="name=script of another server (bench/peers.py)")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    try:
        options.peers = [peers.parse(text) for text in options.peer]
    except ValueError as exc:
        parser.error(str(exc))
    return options


async def _bench(options: argparse.Namespace) -> Figures:
    figures = Figures()
    sizes = Sizes(zipf=max(options.links, steady.LINKS), warm=_WARM, cold=_COLD)
    with tempfile.TemporaryDirectory() as folder:
        local = Options(
            state=Path(folder) / "state", ports=choose_ports(free=True), traces=False, throughput=True,
            settings={"LINKMESH_ENVIRONMENT": "production"},
        )  # fmt: skip
        async with LocalSystem(local, report=_tell) as system:
            figures.ways = await journeys.measure(system, tries=options.tries)
            _tell(f"putting {sizes.zipf} links into Redis, {sizes.cold} into the table")
            await scene.prepare_links(system, sizes)
            _tell(f"{steady.RATE_PER_S} redirects a second for {options.steady:g} s")
            full = await steady.full_system(system, options.steady)
            _tell(f"answered {full.result.answered}, counted {full.counted}, p99 {full.result.p99_ms:.1f} ms")
            if load.available():
                await _pinned(system, Path(folder), sizes, options, figures)
            figures.rows.append(steady.row("linkmesh-10k", full))
            figures.restarted = [name for name in system.names if system.restarts(name)]
    return figures


async def _pinned(
    system: LocalSystem, folder: Path, sizes: Sizes, options: argparse.Namespace, figures: Figures
) -> None:
    async with scene.pinned(system, folder, sizes, options.peers) as stage:
        _tell("fixed counts")
        counts = await exact.measure(stage)
        _tell("rounds")
        code = await scene.make_link(system)
        played = await rounds.play(targets.redirects(stage, code, options.duration), options.rounds)
        rows = [summarise(name, runs, counts.get(name)) for name, runs in played.items()]
        hot = next(row for row in rows if row.name == "linkmesh-hot")
        figures.dropped = await counted.dropped([each.admin_port for each in stage.gateways.values()])
        _tell("half load")
        figures.half = await steady.half_load(stage, code, hot.rps, options.duration * 2)
        _tell("creates")
        processes.yield_to_load(processes.family(system.pid("dynamodb")))  # from here on it works off a backlog
        played = await rounds.play(targets.creates(stage, options.duration), min(_CREATE_ROUNDS, options.rounds))
        rows += [summarise(name, runs, counts.get(name)) for name, runs in played.items()]
        figures.rows += rows


def _tell(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:.0f} s: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
