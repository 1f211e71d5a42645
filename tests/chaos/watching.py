"""What is looked at while things break: when every consumer group has caught up, and when gateways answered without
Redis."""

import asyncio
import re
import statistics
import time
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.lag import worst
from contracts.topics import GROUPS
from linkmesh.local.lag import measure
from linkmesh.local.probes import http_get
from tests.chaos.deployment import GATEWAYS, Deployment
from tests.chaos.history import Kind, Operation

HEALTHY_S = 0.1
_LOOK_S = 0.25
_SAMPLE_S = 0.5
_PROBE_S = 0.004  # of work, at each look
_NOISE = 1.5  # below, it is our own load
_GROUP = re.compile(rb'^consumer_lag_seconds\{group="([^"]+)"', re.MULTILINE)
_UNCONFIRMED = re.compile(rb'^redirect_lookup_total\{source="unconfirmed"\} (\S+)$', re.MULTILINE)


class Machine:
    """How long this machine lets a process wait for its turn: others on it must not look like faults of ours."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=9)
        self.slowest = 1.0

    def slowness(self) -> float:
        """Wall time per time at work: 1 on a machine with room, the median of the last looks."""
        began, worked = time.monotonic(), time.thread_time()
        while time.thread_time() - worked < _PROBE_S:
            pass
        self._recent.append((time.monotonic() - began) / _PROBE_S)
        found = statistics.median(self._recent)
        found = found if found > _NOISE else 1.0
        self.slowest = max(found, self.slowest)
        return found


class Lags:
    """Looks at the lag of every group until each was seen healthy."""

    def __init__(self, deployment: Deployment, machine: Machine, groups: frozenset[str]) -> None:
        self._deployment = deployment
        self.machine = machine
        self._groups = groups

    async def healthy_at(self, *, timeout_s: float) -> tuple[float | None, dict[str, float]]:
        """The moment (monotonic) by which each group's worst partition has been seen below 100 ms, from now on; None:
        not in time. And the last look at those that were not.

        Both bounds are those of a machine with room; on a busy one they grow by what everybody waits for his turn.
        """
        left_s, before = timeout_s, time.monotonic()
        open_groups = {group: float("inf") for group in self._groups}
        async with Admin(self._deployment.kafka, client_id="chaos-lag", timeout_s=3.0) as admin:
            while open_groups and left_s > 0:
                slowness = self.machine.slowness()
                left_s, before = left_s - (time.monotonic() - before) / slowness, time.monotonic()
                try:
                    found = worst(await measure(admin, self._deployment.admin_ports(), clock=SystemClock()))
                except Unavailable:
                    found = {}
                for group, row in found.items():
                    if row.seconds < HEALTHY_S * slowness:
                        open_groups.pop(group, None)
                    elif group in open_groups:
                        open_groups[group] = row.seconds
                if not open_groups:
                    return time.monotonic(), {}
                await asyncio.sleep(_LOOK_S)
        return None, open_groups


async def consumed_groups(deployment: Deployment) -> frozenset[str]:
    """The groups of contracts/topics.py that some process says it consumes for."""
    found: set[str] = set()
    for port in deployment.admin_ports():
        _, body = await http_get(port, "/metrics")
        found |= {name.decode() for name in _GROUP.findall(body)}
    return frozenset(found & set(GROUPS))


@dataclass
class Unconfirmed:
    """How often each gateway answered from the table because Redis could not be asked (rule L4), over time."""

    deployment: Deployment
    samples: dict[int, tuple[list[float], list[float]]] = field(
        default_factory=lambda: {number: ([], []) for number in range(len(GATEWAYS))}
    )

    async def run(self, over: asyncio.Event) -> None:
        """Looks twice a second until it is over, and once more."""
        while True:
            ended = over.is_set()
            for number, name in enumerate(GATEWAYS):
                await self._look(number, self.deployment.admin_port(name))
            if ended:
                return
            await asyncio.sleep(_SAMPLE_S)

    async def _look(self, number: int, port: int) -> None:
        asked = time.monotonic()
        status, body = await http_get(port, "/metrics")
        if status != 200:
            return
        count = float(found[1]) if (found := _UNCONFIRMED.search(body)) else 0.0
        times, counts = self.samples[number]
        times.append(asked)
        counts.append(count)

    def covers(self, operation: Operation) -> bool:
        """Whether a redirect may have been such an answer: the count of its gateway changed around it. P2 states this
        exception: Redis is away, and the change is not in the table yet."""
        if operation.kind is not Kind.FOLLOW or operation.returned is None:
            return False
        times, counts = self.samples[operation.gateway]
        first = max(0, bisect_right(times, operation.invoked) - 1)
        last = bisect_left(times, operation.returned)
        around = counts[first : last + 1]
        return last >= len(times) or any(value != around[0] for value in around)
