"""A run: load, faults one after the other, rest, judgement."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from contracts.topics import LINKS_EVENTS
from linkmesh.client import Client as RestClient
from linkmesh.local.probes import http_get
from tests.chaos import evidence
from tests.chaos.deployment import LINK_SERVICES, Deployment, deployed
from tests.chaos.faults import Book, Breaker
from tests.chaos.history import History, write_history
from tests.chaos.judge import Rows, Verdict, judge, without_forgotten
from tests.chaos.receiver import Receiver, receiving
from tests.chaos.schedule import Step
from tests.chaos.watching import Lags, Machine, Unconfirmed, consumed_groups
from tests.chaos.workload import TIMEOUT_S, USERS, Account, Client, Load

RECOVERY_S = 30.0
CLIENTS = 12
_WARM_UP_S = 3.0
_QUIET_S = 25.0  # above the second try of a delivery (5 s) and the life of a claim (8 s)
_REST_S = 120.0  # until the outbox is empty and every group has caught up, on a slow machine
_DECODING_GROUPS = ("database-writer", "webhooks")

Say = Callable[[str], None]


@dataclass
class Report:
    """What a run came to. `recoveries` are the seconds from the healing of a step's last victim to healthy lags."""

    seed: int
    verdict: Verdict = field(default_factory=Verdict)
    book: Book = field(default_factory=Book)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine)
    groups: frozenset[str] = frozenset()  # whose lag is watched
    history: Path | None = None

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return self.verdict.good and not self.problems and not self.book.problems

    def line(self) -> str:
        """The line that says it all."""
        found = self.verdict
        return (
            f"faults {len(self.book.faults)}, acknowledged {found.acknowledged}, lost {len(found.lost)}, "
            f"wrong {len(found.wrong)}, stale {len(found.stale)}"
        )


class _Length:
    """How long things are broken: so many seconds; twice as long as that at most, while there are too few faults."""

    def __init__(self, seconds: float, faults_min: int) -> None:
        self._until = time.monotonic() + seconds
        self._longest = self._until + seconds
        self._faults_min = faults_min

    def left_s(self, faults: int) -> float:
        """What is left, after so many faults."""
        return (self._until if faults >= self._faults_min else self._longest) - time.monotonic()

    def is_over(self, faults: int) -> bool:
        """Whether nothing is left."""
        return self.left_s(faults) <= 0


async def run(
    state: Path, *, seed: int, seconds: float, steps: Iterator[Step], say: Say, faults_min: int = 0
) -> Report:
    """Breaks things for so many seconds (up to twice as long while there are fewer than `faults_min`), then judges.

    The history is written into `state` if anything was found.
    """
    report = Report(seed)
    history = History()
    async with receiving() as receiver, deployed(state) as deployment:
        accounts = (
            Account(USERS[0], await deployment.new_key(USERS[0])),
            Account(USERS[1], await deployment.new_key(USERS[1])),
        )
        owners = await asyncio.to_thread(_subscribe, deployment, accounts, receiver)
        load = Load(history, accounts, (deployment.gateway(0), deployment.gateway(1)), seed)
        unconfirmed = Unconfirmed(deployment)
        async with asyncio.TaskGroup() as tasks:
            watching = asyncio.Event()
            tasks.create_task(unconfirmed.run(watching))
            async with _under_load(load):
                await asyncio.sleep(_WARM_UP_S)
                report.groups = await consumed_groups(deployment)
                say(f"groups: {', '.join(sorted(report.groups))}")
                await _break(deployment, load, report, steps, _Length(seconds, faults_min), say=say)
            watching.set()
        report.problems += await _rest(deployment, Lags(deployment, report.machine, report.groups))
        rows = await evidence.read_rows(deployment.dynamodb, USERS)
        await _until_delivered(receiver, owners, rows)
        report.verdict = _judged(history, rows, report, unconfirmed)
        records = await evidence.read_topic(deployment.kafka, LINKS_EVENTS.name, LINKS_EVENTS.partitions)
        letters = await evidence.read_topic(deployment.kafka, *evidence.letters_topic())
        poison = report.book.poison
        report.problems += evidence.check_topic(records, rows, poison)
        report.problems += evidence.check_dead_letters(letters, poison, _DECODING_GROUPS)
        report.problems += evidence.check_audit(state, records)
        report.problems += evidence.check_deliveries(receiver.told, owners, rows)
        for line in deployment.lines:
            say(f"  {line}")
    if not report.good:
        report.history = state / "history.jsonl"
        write_history(report.history, history.operations)
    return report


async def _break(
    deployment: Deployment, load: Load, report: Report, steps: Iterator[Step], length: "_Length", *, say: Say
) -> None:
    breaker = Breaker(deployment, load, report.book)
    lags = Lags(deployment, report.machine, report.groups)
    for step in steps:
        if length.is_over(len(report.book.faults)):
            return
        if step.hold_s > length.left_s(len(report.book.faults)):
            await asyncio.sleep(0.1)
            continue
        began = time.monotonic()
        faults = await breaker.carry_out(step)
        healed = time.monotonic()
        healthy, open_groups = await lags.healthy_at(timeout_s=RECOVERY_S)
        recovered_s = (healthy or time.monotonic()) - healed
        report.recoveries.append((str(step), recovered_s))
        if healthy is None:
            report.problems.append(f"{step}: not healthy {RECOVERY_S:g} s after healing: {open_groups}")
        behind = "".join(f", {group} {seconds:.1f} s" for group, seconds in open_groups.items())
        in_flight = ", ".join(str(fault.in_flight) for fault in faults)
        say(
            f"{step}: {len(faults)} died or stopped with {in_flight or 0} in flight, {healed - began:.1f} s until"
            f" it served, {recovered_s:.1f} s more until lags were healthy{behind}; {load.history.acknowledged} done"
        )


@contextlib.asynccontextmanager
async def _under_load(load: Load) -> AsyncIterator[None]:
    load.started_at = asyncio.get_running_loop().time()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=CLIENTS * 2)) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(CLIENTS):
            tasks.create_task(Client(load, number, http).run())
        try:
            yield
        finally:
            load.over.set()


async def _rest(deployment: Deployment, lags: Lags) -> list[str]:
    """Returns when nothing is under way any more; what still is, otherwise."""
    deadline = time.monotonic() + _REST_S * lags.machine.slowness()
    while (waiting := await _in_outbox(deployment)) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    healthy, open_groups = await lags.healthy_at(timeout_s=_REST_S)
    if waiting or healthy is None:
        return [f"never came to rest: {waiting} in the outbox, behind: {open_groups}"]
    return []


def _judged(history: History, rows: Rows, report: Report, unconfirmed: Unconfirmed) -> Verdict:
    operations, kept = without_forgotten(history.operations, rows, report.book.forgotten)
    report.book.left_out = len(rows.events) - len(kept.events)
    verdict = judge(operations, kept, excused=unconfirmed.covers)
    verdict.acknowledged = history.acknowledged
    return verdict


async def _until_delivered(receiver: Receiver, owners: Mapping[str, str], rows: Rows) -> None:
    """Returns when every delivery has arrived, or none has for a while."""
    last, quiet_since = -1, time.monotonic()
    while evidence.check_deliveries(receiver.told, owners, rows) and time.monotonic() - quiet_since < _QUIET_S:
        arrived = sum(len(events) for events in receiver.told.values())
        if arrived != last:
            last, quiet_since = arrived, time.monotonic()
        await asyncio.sleep(1.0)


async def _in_outbox(deployment: Deployment) -> float:
    """Entries, as the first link_service that answers counts them (it looks once a second); -1: none does."""
    await asyncio.sleep(1.5)
    for name in LINK_SERVICES:
        _, body = await http_get(deployment.admin_port(name), "/metrics")
        for line in body.decode().splitlines():
            if line.startswith("outbox_entries "):
                return float(line.split()[1])
    return -1


def _subscribe(deployment: Deployment, accounts: tuple[Account, Account], receiver: Receiver) -> dict[str, str]:
    """Two endpoints for the first account, one for the second: path → account."""
    owners = {"one": accounts[0], "two": accounts[0], "three": accounts[1]}
    for path, account in owners.items():
        with RestClient(deployment.gateway(0), account.api_key) as client:
            client.create_webhook(f"{receiver.url}/{path}", [])
    return {path: account.user for path, account in owners.items()}
