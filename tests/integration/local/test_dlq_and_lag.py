"""`linkmesh dlq` and `linkmesh lag` on a real broker with the real topics, as a person types them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from chassis.clock import SystemClock
from chassis.kafka.consumers import Subscription, keyed_consumer
from chassis.kafka.producer import Producer
from chassis.kafka.record import Done, Message, Outcome, Record, Rejected
from linkmesh.cli.main import app
from linkmesh.local.engines import KafkaEngine
from linkmesh.local.ports import free_port
from linkmesh.local.storage import ensure_topics
from tests.engines import running, state_folder

LIMIT_S = 40.0
TOPIC = "links-events"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaEngine]:
    """A broker of this module's own, with the topics of contracts/topics.py."""
    with running(KafkaEngine(state_folder(tmp_path_factory, "kafka"), free_port(), free_port())) as engine:
        asyncio.run(ensure_topics(engine.bootstrap))
        yield engine


@dataclass
class World:
    """Groups on `links-events`; database-writer rejects what begins with `bad` while it is broken."""

    bootstrap: str
    broken: bool = True
    handled: dict[str, list[Record]] = field(default_factory=dict)

    @asynccontextmanager
    async def member(self, group: str) -> AsyncIterator[None]:
        """A consumer of this group, running for the length of the block."""
        handled = self.handled.setdefault(group, [])

        async def handle(records: Sequence[Record]) -> Sequence[Outcome]:
            handled.extend(records)
            bad = self.broken and group == "database-writer"
            return [Rejected("conflict", "two") if bad and r.key.startswith(b"bad") else Done() for r in records]

        stop = asyncio.Event()
        subscription = Subscription(self.bootstrap, group, [TOPIC], f"member-of-{group}")
        async with (
            keyed_consumer(
                subscription, handler=handle, clock=SystemClock(), set_ready=lambda _met, _why: None
            ) as runner,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(runner.run(stop))
            try:
                yield
            finally:
                stop.set()

    async def send(self, *keys: str) -> None:
        """Send a record per key."""
        async with Producer(self.bootstrap, client_id="t", clock=SystemClock()) as producer:
            batch = [Message(TOPIC, key.encode(), b"not a link event", (("ce_id", b"1"),)) for key in keys]
            assert await producer.send_in_order(batch, timeout_s=LIMIT_S) == len(batch)

    def keys(self, group: str) -> list[str]:
        """Which keys a group handled."""
        return sorted(record.key.decode() for record in self.handled.get(group, []))


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0.02)


async def typed(*arguments: str, code: int = 0) -> str:
    """What a command prints."""
    answer = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert answer.exit_code == code, answer.output
    return str(answer.stdout)


async def told(*arguments: str) -> dict[str, list[dict[str, object]]]:
    """What a command prints with --json."""
    found: dict[str, list[dict[str, object]]] = json.loads(await typed(*arguments, "--json"))
    return found


@pytest.mark.rule("C5")
def test_from_the_first_dead_letter_to_none(broker: KafkaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """list, show, replay --dry-run, replay, lag, purge --dry-run, purge: each does what it says, and no more."""
    monkeypatch.setenv("LINKMESH_KAFKA", broker.bootstrap)
    world = World(broker.bootstrap)

    async def scenario() -> None:
        await world.send("bad1", "good", "bad2", "bad3")
        async with world.member("database-writer"), world.member("webhooks"):
            await until(lambda: len(world.keys("database-writer")) == len(world.keys("webhooks")) == 4)
        listed = await told("dlq", "list")
        assert sorted(str(letter["code"]) for letter in listed["letters"]) == ["bad1", "bad2", "bad3"]
        assert listed["last_hour"] == [{"group": "database-writer", "count": 3, "severity": "normal", "stopped": False}]
        assert len((await told("dlq", "list", "--code", "bad2", "--since", "1h"))["letters"]) == 1
        assert (await told("dlq", "list", "--until", "1h"))["letters"] == []
        (letter,) = (await told("dlq", "list", "--code", "bad2"))["letters"]
        page = await typed("dlq", "show", str(letter["id"]))
        assert "not a link event" in page
        assert "conflict" in page
        for what in (("show",), ("replay",), ("purge", "--yes")):
            await typed("dlq", *what, "links-events-dlq/0/999", code=3)

        assert "3 would be replayed" in await typed("dlq", "replay", "--dry-run")
        world.broken = False
        world.handled.clear()
        assert await typed("dlq", "replay", str(letter["id"])) == "1 replayed\n"
        assert await typed("dlq", "replay", "--group", "database-writer") == "2 replayed\n"
        assert await typed("dlq", "replay") == "nothing to replay\n"
        behind = [row for row in json.loads(await typed("lag", "--json")) if row["records"]]
        assert {row["group"] for row in behind} == {"database-writer", "webhooks", "audit-log"}
        async with world.member("database-writer"), world.member("webhooks"):
            await until(lambda: len(world.keys("database-writer")) == 3)
            await world.send("last")
            await until(lambda: "last" in world.keys("database-writer") and "last" in world.keys("webhooks"))
        assert world.keys("database-writer") == ["bad1", "bad2", "bad3", "last"]
        assert world.keys("webhooks") == ["last"]
        rows = json.loads(await typed("lag", "--json", "--group", "webhooks"))
        assert [(row["records"], row["seconds"], row["level"]) for row in rows] == [(0, 0.0, "healthy")] * 10

        assert "3 dead letters would be deleted, 0 of them never" in await typed("dlq", "purge", "--dry-run")
        await typed("dlq", "purge", code=2)
        assert len((await told("dlq", "list", "--all"))["letters"]) == 3, "nothing was done without --yes"
        assert "3 dead letters deleted" in await typed("dlq", "purge", "--replayed", "--yes")
        assert "0 dead letters" in await typed("dlq", "list", "--all")

    asyncio.run(scenario())


@pytest.mark.rule("C5")
def test_resume_after_the_breaker_tripped(broker: KafkaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """51 dead letters within the hour stop the real limit's group; `resume` lets it go on, and counts begin anew."""
    monkeypatch.setenv("LINKMESH_KAFKA", broker.bootstrap)
    world = World(broker.bootstrap)

    async def scenario() -> None:
        await world.send(*[f"bad-{number}" for number in range(51)])
        async with world.member("database-writer"):
            await until(lambda: len(world.keys("database-writer")) >= 51)
            async with asyncio.timeout(LIMIT_S):
                while (await told("dlq", "list"))["last_hour"][0]["count"] != 51:
                    await asyncio.sleep(0.1)
            (counted,) = (await told("dlq", "list"))["last_hour"]
            world.broken = False
            await world.send("after")
            assert "after" not in world.keys("database-writer")
            resumed = await typed("dlq", "resume", "database-writer")
            await until(lambda: "after" in world.keys("database-writer"))

        assert (counted["severity"], counted["stopped"]) == ("critical", True)
        assert "51 dead letters counted, now 0" in resumed
        assert (await told("dlq", "list"))["last_hour"][0]["count"] == 0

    asyncio.run(scenario())


def test_the_lag_of_a_group_whose_processes_are_dead(broker: KafkaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody consumes: records and seconds still show, and the seconds grow; there is no owner."""
    monkeypatch.setenv("LINKMESH_KAFKA", broker.bootstrap)
    world = World(broker.bootstrap, broken=False)

    async def scenario() -> None:
        async with world.member("database-writer"):
            await world.send("warm")
            await until(lambda: "warm" in world.keys("database-writer"))
            owned = json.loads(await typed("lag", "--json", "--group", "database-writer"))
        await world.send("waits")
        first, second = [
            max(json.loads(await typed("lag", "--json", "--group", "database-writer")), key=lambda row: row["seconds"])
            for _ in range(2)
        ]

        assert {row["owner"] for row in owned} == {"member-of-database-writer"}
        assert (first["records"], first["owner"]) == (1, "")
        assert 0 < first["seconds"] < second["seconds"]
        assert "database-writer  links-events" in await typed("lag", "--once", "--group", "database-writer")

    asyncio.run(scenario())
