"""R8 on real engines: Redis is killed and comes back empty, or as it was a while ago."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from chassis.clock import SystemClock
from chassis.dynamodb import open_dynamodb
from chassis.errors import Unavailable
from chassis.redis import Redis, open_redis
from contracts.cache import IDS_HIGH, url_key
from contracts.link import LinkKey
from contracts.link_codec import link_from_message
from contracts.link_rows import link_to_row
from contracts.restoring import NOTED, UNSETTLED
from contracts.tables import LINKS
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine, ValkeyEngine
from linkmesh.local.storage import ensure_topics
from shortener.link.v1 import link_pb2
from tests.integration.link_service.running import Engines, Gateway, Play, ServiceProcess, until, works

Answer = TypeVar("Answer")
DELETED = link_pb2.LINK_STATE_DELETED
RECOVERED_S = 60  # on a busy machine; a few seconds otherwise
LINKS_MADE = 60


@pytest.fixture
def engines(valkey_fresh: ValkeyEngine, dynamodb_fresh: DynamoDBEngine, kafka_fresh: KafkaEngine) -> Engines:
    """All of this test alone: its log has only its own events, and its broker may be stopped."""
    asyncio.run(ensure_topics(kafka_fresh.bootstrap))
    return Engines(valkey_fresh, dynamodb_fresh, kafka_fresh.bootstrap)


async def surely(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer; on a busy machine Redis now and then misses its deadline, which is an honest 503."""
    for _ in range(20):
        try:
            return await call()
        except Unavailable:
            await SystemClock().sleep(0.5)
    return await call()


async def created(caller: Gateway, count: int) -> list[link_pb2.Link]:
    """New links."""
    return [(await surely(caller.create)).link for _ in range(count)]


async def ended(caller: Gateway, links: Sequence[link_pb2.Link]) -> list[link_pb2.Link]:
    """These links, ended."""
    return [(await surely(partial(caller.delete, link.short_code))).link for link in links]


async def resolve_to(caller: Gateway, links: Sequence[link_pb2.Link]) -> None:
    """Each code leads to exactly this version."""
    for link in links:
        found = await surely(partial(caller.resolve, link.short_code, timeout_s=2))
        assert (found.link, found.unconfirmed) == (link, False)


async def sent_to_kafka(valkey: ValkeyEngine) -> None:
    """Waits until everything that was acknowledged is in the log."""
    async with open_redis(valkey.url, timeout_s=ANSWER_TIMEOUT_S) as client:
        outbox = RedisOutbox(client, clock=SystemClock())

        async def is_empty() -> bool:
            return (await outbox.depth()).entries == 0

        await until(is_empty, timeout_s=30)


async def come_back(valkey: ValkeyEngine, copy: Path | None = None) -> None:
    """kill -9, and a start on other data: a copy, or none."""
    valkey.kill()
    shutil.rmtree(valkey.data)
    if copy is not None:
        shutil.copytree(copy, valkey.data)
    await valkey.start()


async def refused_with_a_time_to_come_again(caller: Gateway) -> None:
    """Waits until Redis answers again; every change and every look-up is 503 meanwhile, and then still."""

    async def says_that_it_is_restored() -> bool:
        for call in (caller.create(), caller.resolve("some-code", timeout_s=2)):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.retry_after_s
        return "restored" in caught.value.message

    await until(says_that_it_is_restored, timeout_s=RECOVERED_S)


async def there_is(client: Redis, name: str) -> bool:
    """Whether Redis has a key."""
    return bool(await client.exists(name))


async def says_so(service: ServiceProcess) -> bool:
    """Whether the meter tells of it."""
    return service.metric("redis_restored") == 0


@pytest.mark.rule("R8", "P1", "P2", "P7", "K1")
def test_an_empty_redis_is_refused_until_it_knows_every_link_again(
    play: Play, engines: Engines, kafka_fresh: KafkaEngine
) -> None:
    """R8: nothing is in the tables (no writer runs). Redis is killed and comes back empty while Kafka hangs: changes
    and look-ups are 503. Kafka goes on: every acknowledged link is there, ended ones as ended, changes go on, no code
    is issued twice. A link_service that restarts then has nothing to do."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        made = await created(caller, LINKS_MADE)
        over = await ended(caller, made[:20])
        await sent_to_kafka(engines.valkey)
        kafka_fresh.pause()
        try:
            await come_back(engines.valkey)
            await refused_with_a_time_to_come_again(caller)
            await until(lambda: says_so(service), timeout_s=RECOVERED_S)
        finally:
            kafka_fresh.resume()

        await until(works(caller.create), timeout_s=RECOVERED_S)

        await resolve_to(caller, [*made[20:], *over])
        after = await created(caller, 20)
        assert {link.short_code for link in made}.isdisjoint(link.short_code for link in after)
        assert service.metric("redis_links_restored_total") >= len(made)
        async with open_redis(engines.valkey.url, timeout_s=2) as client:
            await until(lambda: there_is(client, IDS_HIGH), timeout_s=RECOVERED_S)

        service.kill()
        await service.start()
        await until(works(caller.create))
        assert service.metric("redis_restorations_total") == 0
        assert service.metric("redis_restored") == 1

    play(scenario)


@pytest.mark.rule("R8", "P1", "P2", "P7")
def test_an_older_redis_is_told_what_came_after_its_copy(play: Play, engines: Engines, tmp_path: Path) -> None:
    """R8: a copy of its folder is made, links are made and ended, Redis is killed and starts on the copy: after that
    every acknowledged version resolves, and what was ended in between is not back."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        made = await created(caller, LINKS_MADE)
        await sent_to_kafka(engines.valkey)
        shutil.copytree(engines.valkey.data, tmp_path / "copy")
        made += await created(caller, 20)
        over = await ended(caller, made[:20])
        await sent_to_kafka(engines.valkey)

        await come_back(engines.valkey, tmp_path / "copy")
        await until(works(caller.create), timeout_s=RECOVERED_S)

        await resolve_to(caller, [*made[20:], *over])
        assert 20 + 20 <= service.metric("redis_links_restored_total") < len(made)
        (changed,) = await ended(caller, [made[30]])
        assert (changed.version, changed.state) == (2, DELETED)

    play(scenario)


@pytest.mark.rule("R8", "R6", "P1", "O1")
def test_a_redis_that_restarts_with_its_data_lost_nothing_and_relays_on(
    play: Play, engines: Engines, kafka_fresh: KafkaEngine
) -> None:
    """R8, P1: kill -9 with the outbox full (Kafka hangs): nothing is lost, nothing is put back, the relay sends what
    waits, and changes go on."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        kafka_fresh.pause()
        try:
            made = await created(caller, LINKS_MADE)
            engines.valkey.kill()
            await engines.valkey.start()
            await refused_with_a_time_to_come_again(caller)
        finally:
            kafka_fresh.resume()
        await until(works(caller.create), timeout_s=RECOVERED_S)
        await sent_to_kafka(engines.valkey)

        await resolve_to(caller, made)
        assert service.metric("redis_links_restored_total") == 0

    play(scenario)


@pytest.mark.rule("R8", "R4")
def test_what_was_put_back_expires_where_the_table_has_it(play: Play, engines: Engines) -> None:
    """R8, R4: links that the writer had finished get their expiry again, others keep none; then all is settled."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        made = await created(caller, 20)
        await sent_to_kafka(engines.valkey)
        async with open_dynamodb(engines.dynamodb.endpoint) as db:
            for message in made[:10]:
                await db.put_item(TableName=LINKS.name, Item=link_to_row(link_from_message(message)))
        await come_back(engines.valkey)
        await until(works(caller.create), timeout_s=RECOVERED_S)

        async with open_redis(engines.valkey.url, timeout_s=2) as client:

            async def is_settled() -> bool:
                return not await client.exists(UNSETTLED)

            await until(is_settled, timeout_s=RECOVERED_S)
            ttls = [await client.pttl(url_key(LinkKey(link.short_code))) for link in made]
        assert all(ttl > 0 for ttl in ttls[:10])
        assert ttls[10:] == [-1] * 10

    play(scenario)


@pytest.mark.rule("R8")
def test_redis_is_told_where_the_log_ends(play: Play, engines: Engines) -> None:
    """R8: a copy of any age carries how far the log was then."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        await created(caller, 5)
        async with open_redis(engines.valkey.url, timeout_s=2) as client:
            await until(lambda: there_is(client, NOTED), timeout_s=RECOVERED_S)

    play(scenario)
