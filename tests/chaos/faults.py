"""Breaking things for real: what was done to which process, proved by the process table, with work in flight."""

import asyncio
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from chassis.clock import SystemClock
from chassis.dynamodb import open_dynamodb
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from contracts.tables import COUNTERS, META
from contracts.topics import LINKS_EVENTS
from linkmesh.local.probes import http_get
from tests.chaos.deployment import GUEST, LINK_SERVICES, Deployment
from tests.chaos.schedule import RELAY, Step, Verb
from tests.chaos.workload import Load

SKEW_S = 25 * 3600.0
_WORK_WAIT_S = 20.0
_READY_S = 120.0
_UNREADY_S = 60.0
_CHURN_S = 3.0
_MEANWHILE_S = 10.0
_MEANWHILE = (
    "link_service", "link_service-2", "writer", "writer-2", "webhook", "audit", "analytics", "gateway",
)  # fmt: skip
RELAYED_S = 2.0  # so old an event is in Kafka, when nothing else is broken: a hundred times what it takes


@dataclass
class Fault:
    """One process that really died or stopped."""

    what: str
    victim: str
    in_flight: int


@dataclass
class Book:
    """What was done. `faults` had work in flight and a process that died or stopped; `others` are the rest."""

    faults: list[Fault] = field(default_factory=list)
    idle: int = 0  # nothing was in flight: does not count
    others: list[str] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)  # keys of poison records
    forgotten: list[tuple[float, float]] = field(default_factory=list)  # what Redis lost: from when to when, at most
    left_out: int = 0  # links that are not judged, for what was forgotten
    problems: list[str] = field(default_factory=list)


class Breaker:
    """Carries out steps."""

    def __init__(self, deployment: Deployment, load: Load, book: Book) -> None:
        self._deployment = deployment
        self._load = load
        self._book = book
        self._random = random.Random(f"faults/{load.seed}")

    async def carry_out(self, step: Step) -> list[Fault]:
        """Break, hold, heal; returns when every victim serves again."""
        victims = [await self._leader() if name == RELAY else name for name in step.victims]
        victims = list(dict.fromkeys(victims))
        match step.verb:
            case Verb.KILL:
                return await self._kill(step, victims, hold_s=0)
            case Verb.AWAY:
                return await self._kill(step, victims, hold_s=step.hold_s)
            case Verb.HANG:
                return await self._hang(step, victims)
            case Verb.SKEW:
                return await self._skew(step, victims)
            case Verb.CHURN:
                return await self._churn(step)
            case Verb.POISON:
                return await self._poison()
            case Verb.COUNTER:
                return await self._restore_counter(step, victims)
            case Verb.OLDER:
                return await self._older_redis(step)

    async def _kill(self, step: Step, victims: Sequence[str], *, hold_s: float) -> list[Fault]:
        for name in victims:
            await self._until_ready(name)
        await self._until_work()
        faults = [fault for name in victims if (fault := self._kill_one(step, name, stay_down=hold_s > 0))]
        if hold_s:
            meanwhile = await self._hold(step, hold_s)
            for name in victims:
                await self._deployment.start(name)
            faults += meanwhile
            victims = [*victims, *(fault.victim for fault in meanwhile)]
        return await self._healed(faults, victims)

    async def _hold(self, step: Step, hold_s: float) -> list[Fault]:
        """Waits; in a long outage the services that go on without it are killed, too, one after the other."""
        until = time.monotonic() + hold_s
        faults: list[Fault] = []
        for name in self._random.sample(_MEANWHILE, len(_MEANWHILE)):
            if time.monotonic() + 2 * _MEANWHILE_S > until:
                break
            await asyncio.sleep(_MEANWHILE_S)
            if not self._deployment.pid(name):
                continue
            await self._until_work()
            if fault := self._kill_one(step, name, stay_down=False):
                faults.append(fault)
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        return faults

    async def _hang(self, step: Step, victims: Sequence[str]) -> list[Fault]:
        for name in victims:
            await self._until_ready(name)
        await self._until_work()
        faults = []
        for name in victims:
            pid, in_flight = self._deployment.pid(name), self._load.history.in_flight
            self._deployment.pause(name)
            if await _is_stopped(pid):
                faults.append(Fault(str(step), name, in_flight))
        await asyncio.sleep(step.hold_s)
        for name in victims:
            self._deployment.resume(name)
        return await self._healed(faults, victims)

    async def _skew(self, step: Step, victims: Sequence[str]) -> list[Fault]:
        ahead = self._random.choice((SKEW_S, -SKEW_S))
        for name in victims:
            self._deployment.services[name].skew_s = ahead
        faults = await self._kill(step, victims, hold_s=0)
        await asyncio.sleep(step.hold_s)
        for name in victims:
            self._deployment.services[name].skew_s = 0.0
        faults += await self._kill(Step(Verb.KILL, step.victims), victims, hold_s=0)
        self._book.others.append(f"{step} ({ahead / 3600:+.0f} h)")
        return faults

    async def _churn(self, step: Step) -> list[Fault]:
        """Another writer joins and leaves, killed and stopped in turn, every few seconds."""
        faults: list[Fault] = []
        until = time.monotonic() + step.hold_s
        rounds = 0
        while time.monotonic() < until:
            rounds += 1
            await self._deployment.start(GUEST)
            await asyncio.sleep(self._random.uniform(0.5, _CHURN_S))
            if rounds % 2:
                await self._until_work()
                if fault := self._kill_one(step, GUEST, stay_down=True):
                    faults.append(fault)
            else:
                await self._deployment.stop(GUEST)
        self._book.others.append(f"{step}: {rounds} came and went")
        return await self._healed(faults, ())

    async def _poison(self) -> list[Fault]:
        """A record that nobody can decode, in a random partition, between what clients are doing."""
        partition = self._random.randrange(LINKS_EVENTS.partitions)
        key = f"poison-{len(self._book.poison)}"
        message = Message(LINKS_EVENTS.name, key.encode(), b"\xff not an event", (), partition)
        await self._until_work()
        async with Producer(self._deployment.kafka, client_id="chaos-poison", clock=SystemClock()) as producer:
            if await producer.send_in_order([message], timeout_s=10) != 1:
                self._book.problems.append("a poison record could not be sent")
                return []
        self._book.poison.append(key)
        self._book.others.append(f"poison record in partition {partition}")
        return []

    async def _restore_counter(self, step: Step, victims: Sequence[str]) -> list[Fault]:
        """The counter of ids comes back from an old backup: nobody may get an id of it; then a person repairs it."""
        await self._until_work()
        faults = [fault for name in victims if (fault := self._kill_one(step, name, stay_down=True))]
        right = await self._swap_counter(0)
        for name in victims:
            await self._deployment.services[name].launch()
        refused = [await self._refuses(name) for name in victims]
        if not all(refused):
            self._book.problems.append("link_service served with a counter that was set back")
        await self._swap_counter(right)
        for name in victims:
            await self._deployment.start(name)
        self._book.others.append(f"{step}: unready as it must be" if all(refused) else f"{step}: FAILED")
        return await self._healed(faults, victims)

    async def _older_redis(self, step: Step) -> list[Fault]:
        """Redis loses its disk and gets a copy that is some seconds old. What was relayed to Kafka must come back from
        there; what was acknowledged in the last moment may not (the stated exception of P1)."""
        folder = self._deployment.state / "data" / "valkey" / "appendonlydir"
        copy = folder.with_name("older")
        await asyncio.to_thread(shutil.copytree, folder, copy)
        await asyncio.sleep(step.hold_s)
        await self._until_work()
        (name,) = step.victims
        fault = self._kill_one(step, name, stay_down=True)
        self._book.forgotten.append((time.monotonic() - RELAYED_S, time.monotonic()))
        await asyncio.to_thread(shutil.rmtree, folder)
        copy.rename(folder)
        await self._deployment.start(name)
        self._book.others.append(f"{step}")
        return await self._healed([fault] if fault else [], (name, *LINK_SERVICES))

    async def _swap_counter(self, value: int) -> int:
        """Set the counter; what it was."""
        async with open_dynamodb(self._deployment.dynamodb) as client:
            answer = await client.put_item(
                TableName=COUNTERS.name,
                Item={"pk": {"S": "ids"}, "sk": {"S": META}, "next": {"N": str(value)}},
                ReturnValues="ALL_OLD",
            )
            return int(answer["Attributes"]["next"]["N"])

    async def _refuses(self, name: str) -> bool:
        """Whether a link_service says that it is unready, because of its ids."""
        port, deadline = self._deployment.admin_port(name), time.monotonic() + _UNREADY_S
        while time.monotonic() < deadline:
            status, body = await http_get(port, "/readyz")
            if status == 200:
                return False
            if b"counter of ids" in body:
                return True
            await asyncio.sleep(0.1)
        return False

    def _kill_one(self, step: Step, name: str, *, stay_down: bool) -> Fault | None:
        pid, in_flight = self._deployment.pid(name), self._load.history.in_flight
        process = psutil.Process(pid) if pid else None
        self._deployment.kill(name, stay_down=stay_down)
        if process is None or process.is_running():
            self._book.problems.append(f"{name} was not killed")
            return None
        return Fault(str(step), name, in_flight)

    async def _healed(self, faults: list[Fault], victims: Sequence[str]) -> list[Fault]:
        for name in victims:
            await self._until_ready(name)
        for fault in faults:
            if fault.in_flight:
                self._book.faults.append(fault)
            else:
                self._book.idle += 1
        return faults

    async def _until_ready(self, name: str) -> None:
        deadline = time.monotonic() + _READY_S
        while not (self._deployment.pid(name) and await self._deployment.is_ready(name)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not ready again after {_READY_S:g} s")
            await asyncio.sleep(0.05)

    async def _until_work(self) -> None:
        """Have clients not pause for a moment, and return at a random one at which operations are under way."""
        self._load.pressed = True
        try:
            async with asyncio.timeout(_WORK_WAIT_S):
                await asyncio.sleep(self._random.uniform(0.3, 1.0))
                while not self._load.history.in_flight:
                    await asyncio.sleep(0.001)
        except TimeoutError:
            pass  # nothing is: the fault will not count
        finally:
            self._load.pressed = False

    async def _leader(self) -> str:
        """The link_service that leads the relay now."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            for name in LINK_SERVICES:
                _, body = await http_get(self._deployment.admin_port(name), "/metrics")
                if b"\nrelay_leading 1.0" in body:
                    return name
            await asyncio.sleep(0.1)
        raise TimeoutError("nobody leads the relay")


async def _is_stopped(pid: int) -> bool:
    """Whether the kernel says so, within a second."""
    for _ in range(100):
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return True
        await asyncio.sleep(0.01)
    return False
