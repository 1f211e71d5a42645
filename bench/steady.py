"""Redirects at a fixed rate, open loop: the full system at 10 000 a second, and one process at half of what it can."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from bench import counted, links, open_loop, processes
from bench.load import BROWSER
from bench.paced import Plan, Result
from bench.report import Row
from bench.rounds import LOAD_CORE
from bench.scene import Scene
from linkmesh.local.supervisor import LocalSystem

RATE_PER_S = 10_000
LINKS = 100_000
CONNECTIONS = 64
_OWN_SHARE = 0.75  # of what the generator can do at most is asked of it: above, it would time itself
_LIMIT_REQUESTS = 60_000
_WARM_UP_S = 6
_LOOK_S = 0.5
TOLD_US = 0.5  # processes that used less are not told


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """A run of the full system: what the generator saw, what was counted, what each process used per redirect."""

    duration_s: float
    result: Result
    counted: int
    cpu_us: Mapping[str, float]
    rss_mb: float
    rows_written: float  # by analytics, for all of these clicks


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfLoad:
    """One server at half of the rate that Linkmesh's hot path can take."""

    name: str
    rate_per_s: float
    result: Result = field(repr=False)


async def full_system(system: LocalSystem, duration_s: float, *, flush_s: float = 0) -> Steady:
    """The whole system on all cores, 10 000 redirects a second over 100 000 links by Zipf's law. Nobody is pinned; the
    generator takes its share of the machine as well. Before, some seconds at half the rate: the gateway knows popular
    links, as it does but for its first seconds. `flush_s`: how long to wait for analytics to write what it has
    counted, whose work is then its own and the database's, too."""
    port, analytics = system.options.ports["gateway"], system.options.ports["analytics-admin"]
    requests = open_loop.get_requests(port, [links.code_of(number) for number in range(LINKS)], BROWSER)
    plan = Plan(
        port=port,
        rate_per_s=RATE_PER_S,
        connections=CONNECTIONS,
        requests=requests,
        order=links.zipf(LINKS, round(RATE_PER_S * duration_s)),
    )
    order = links.zipf(LINKS, round(_WARM_UP_S * RATE_PER_S / 2), seed=2)
    clicks = await counted.all_clicks([analytics])
    await open_loop.play(replace(plan, rate_per_s=RATE_PER_S / 2, order=order))
    await counted.settled(lambda: counted.all_clicks([analytics]), clicks + len(order))
    pids = {name: processes.family(system.pid(name)) for name in system.names if system.pid(name)}
    before_s = {name: processes.cpu_s(each) for name, each in pids.items()}
    clicks, rows = await counted.all_clicks([analytics]), await _rows_written(analytics)
    result = await open_loop.play(plan)
    count = await counted.settled(lambda: counted.all_clicks([analytics]), clicks + result.answered) - clicks
    used_s = {name: processes.cpu_s(each) - before_s[name] for name, each in pids.items()}
    if flush_s:
        await _flushed(analytics, flush_s)
        used_s |= {name: processes.cpu_s(pids[name]) - before_s[name] for name in ("analytics", "dynamodb")}
    answered = max(1, result.answered)
    return Steady(
        duration_s=duration_s,
        result=result,
        counted=count,
        cpu_us={name: 1e6 * seconds / answered for name, seconds in used_s.items()},
        rss_mb=sum(processes.resident_mb(each) for each in pids.values()),
        rows_written=await _rows_written(analytics) - rows,
    )


async def half_load(scene: Scene, code: str, rps: float, duration_s: float) -> list[HalfLoad]:
    """One gateway with everything on at half of the rate that it can take, and nginx at the same rate: what that shows
    is the generator's and the machine's. No faster than the generator can go without timing itself, which is tried
    out on nginx, or on the gateway where there is no nginx."""
    hot = scene.gateways["hot"]
    servers = [("linkmesh-hot", f"{hot.url}/{code}"), *((each.name, each.url) for each in scene.limits[:1])]
    limit = await open_loop.play(_one_link(servers[-1][1], _LIMIT_REQUESTS, 0))
    rate = min(0.5 * rps, _OWN_SHARE * limit.rps)
    count = round(rate * duration_s)
    return [
        HalfLoad(name=name, rate_per_s=rate, result=await open_loop.play(_one_link(url, count, rate)))
        for name, url in servers
    ]


def row(name: str, steady: Steady) -> Row:
    """A run as a row of the table; its CPU is that of all processes together."""
    result, total_us = steady.result, sum(steady.cpu_us.values())
    return Row(
        name=name,
        rps=result.rps,
        rps_min=result.rps,
        rps_max=result.rps,
        cpu_us=total_us,
        cpu_us_min=total_us,
        cpu_us_max=total_us,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        rss_mb=steady.rss_mb,
        rounds=1,
        answered=result.answered,
        errors=result.wrong + result.lost,
        counted=steady.counted,
        parts_us={part: cpu_us for part, cpu_us in steady.cpu_us.items() if cpu_us >= TOLD_US},
    )


def _one_link(url: str, count: int, rate_per_s: float) -> Plan:
    parts = urlsplit(url)
    port = parts.port or 80
    return Plan(
        port=port,
        rate_per_s=rate_per_s,
        connections=CONNECTIONS,
        requests=open_loop.get_requests(port, [parts.path.removeprefix("/")], BROWSER),
        order=[0] * count,
        core=LOAD_CORE,
    )


async def _rows_written(analytics: int) -> float:
    return await counted.metric_sum(analytics, "analytics_rows_written_total")


async def _flushed(analytics: int, patience_s: float) -> None:
    """Returns when analytics has written all rows.

    Raises:
        TimeoutError: it has not, in that time.
    """
    async with asyncio.timeout(patience_s):
        while await counted.metric_sum(analytics, "analytics_rows", state="dirty"):  # noqa: ASYNC110 - asked over the network
            await asyncio.sleep(_LOOK_S)
