"""Rounds: every target in turn, so that a noisy minute of the machine hits all of them; and what each round cost."""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench import processes
from bench.load import Load
from bench.report import Round

SERVER_CORE, LOAD_CORE = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a round is run against. `play` and `prepare` are given the round's number, from 0.

    `servers`: the processes whose CPU is the row's, by name; `beside`: others that worked for it, told apart;
    `settles`: of these, who may put work off (clicks to be sent): the round lasts until they are done.
    """

    name: str
    play: Callable[[int], Awaitable[Load]]
    servers: Mapping[str, Sequence[int]]
    beside: Mapping[str, Sequence[int]] = field(default_factory=dict)
    settles: Sequence[int] = ()
    prepare: Callable[[int], Awaitable[None]] | None = None


async def play(targets: Sequence[Target], rounds: int) -> dict[str, list[Round]]:
    """The rounds of each target."""
    played: dict[str, list[Round]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for target in targets:
            measured = await _round(target, number)
            played[target.name].append(measured)
            told = f"round {number + 1}: {target.name} {measured.rps:,.0f}/s, {measured.cpu_us:.1f} µs"
            print(told, file=sys.stderr)
    return played


async def _round(target: Target, number: int) -> Round:
    if target.prepare is not None:
        await target.prepare(number)
    watched = {**target.servers, **target.beside}
    before_s = {name: processes.cpu_s(pids) for name, pids in watched.items()}
    result = await target.play(number)
    if target.settles and not await processes.quiet(target.settles):
        print(f"{target.name}: was not done with its clicks after a round", file=sys.stderr)
    used_us = {
        name: 1e6 * (processes.cpu_s(pids) - before_s[name]) / max(1, result.requests) for name, pids in watched.items()
    }
    return Round(
        rps=result.rps,
        cpu_us=sum(used_us[name] for name in target.servers),
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        rss_mb=processes.resident_mb([pid for pids in target.servers.values() for pid in pids]),
        answered=result.requests if result.created is None else result.created,
        errors=result.errors,
        parts_us=used_us if len(used_us) > 1 else {},
    )
