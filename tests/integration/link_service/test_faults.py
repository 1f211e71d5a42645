"""What link_service does while an engine is away or hangs, and when it is killed itself."""

import asyncio

import pytest

from chassis.clock import SystemClock
from chassis.dynamodb import open_dynamodb
from chassis.errors import (
    ServiceError,
    Unavailable,
)
from contracts.link_rows import link_to_row
from contracts.tables import LINKS
from shortener.key.v1 import key_service_pb2 as key_pb
from tests.fakes.link_events import make_link
from tests.integration.link_service.running import (
    Engines,
    Gateway,
    Play,
    ServiceProcess,
    until,
    works,
)


@pytest.mark.rule("P5", "L4")
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_without_redis_codes_resolve_from_the_table_within_their_deadline(
    play: Play, engines: Engines, how: str
) -> None:
    """L4, P5: Redis stopped or hung: DynamoDB answers, marked; absences and creates are 503; then all heals."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        async with open_dynamodb(engines.dynamodb.endpoint) as db:
            await db.put_item(TableName=LINKS.name, Item=link_to_row(make_link("stored-1")))
        await until(works(lambda: caller.resolve("stored-1", timeout_s=2)))
        if how == "killed":
            engines.valkey.kill()
        else:
            engines.valkey.pause()
        try:
            for _ in range(20):
                answer = await caller.resolve("stored-1")
                assert (answer.link.short_code, answer.unconfirmed) == ("stored-1", True)
            with pytest.raises(Unavailable):
                await caller.resolve("absent-1")
            with pytest.raises(Unavailable):
                await caller.create()
        finally:
            if how == "killed":
                await engines.valkey.start()
            else:
                engines.valkey.resume()

        await until(works(caller.create))
        await until(works(lambda: caller.create(f"healed-{how}")))
        assert not (await caller.resolve("stored-1", timeout_s=2)).unconfirmed

    play(scenario)


@pytest.mark.rule("P5", "K1")
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_without_the_database_generated_creates_go_on(play: Play, engines: Engines, how: str) -> None:
    """K1, P5: ids and verdicts on keys are in hand: creates, reads and deletes in Redis go on; custom is 503."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        key = await caller.keys.CreateKey(key_pb.CreateKeyRequest(user_id="ada"), timeout=5)
        secret = key_pb.VerifyKeyRequest(secret=key.secret)
        await caller.keys.VerifyKey(secret, timeout=5)
        if how == "killed":
            engines.dynamodb.kill()
        else:
            engines.dynamodb.pause()
        try:
            await SystemClock().sleep(1.1)  # the verdict is no longer fresh
            assert (await caller.keys.VerifyKey(secret, timeout=1)).principal.user_id == "ada"
            code = (await caller.create()).link.short_code
            assert (await caller.resolve(code)).link.short_code == code
            await caller.delete(code)
            with pytest.raises(Unavailable):
                await caller.create(f"custom-{how}")
            assert service.metric('key_verdicts_total{source="stale"}') >= 1
        finally:
            if how == "killed":
                await engines.dynamodb.start()
            else:
                engines.dynamodb.resume()

        await until(works(lambda: caller.create(f"custom-{how}")))

    play(scenario)


@pytest.mark.rule("P1", "K1")
def test_kill_nine_during_creates_loses_no_acknowledged_link(play: Play, engines: Engines) -> None:
    """P1, K1: what was acknowledged before the kill is there after the restart, and no code is issued twice."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        acknowledged: list[str] = []

        async def keep_creating() -> None:
            while True:
                try:
                    acknowledged.append((await caller.create(timeout_s=1)).link.short_code)
                except ServiceError:
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(keep_creating())
            await until(lambda: _more_than(acknowledged, 200))
            service.kill()
        before = list(acknowledged)
        await service.start()
        await until(works(caller.create))
        after = [(await caller.create()).link.short_code for _ in range(50)]

        for code in before:
            assert (await caller.resolve(code, timeout_s=2)).link.short_code == code
        assert len(set(before) | set(after)) == len(before) + len(after)

    play(scenario)


async def _more_than(found: list[str], number: int) -> bool:
    return len(found) > number
