"""Codes that Redis has not: how often the table is asked, and what a database that throttles does to visitors."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.clock import SystemClock, uuid7
from chassis.dynamodb import open_dynamodb
from chassis.errors import NotFound, ServiceError, Unavailable
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import Producer
from chassis.kafka.record import Message
from chassis.redis import open_redis
from contracts.cache import url_key
from contracts.link import Link, LinkKey
from contracts.link_rows import link_to_row
from contracts.tables import LINKS, META, link_pk
from contracts.topics import READ_REQUESTS
from gateway.adapters.resolver_grpc import GrpcResolver
from shortener.events.v1.read_events_pb2 import ReadRequested
from tests.dynamodb_proxy import DynamoDBProxy, delayed, dynamodb_proxy, throttled, unprocessed_reads
from tests.fakes.link_events import make_link
from tests.integration.link_service.running import (
    Engines,
    Gateway,
    Scenario,
    ServiceProcess,
    gateway,
    process,
    until,
    works,
)

RESOLVES = 'rpc_server_calls_started_total{method="shortener.link.v1.LinkService/ResolveLink"}'
UNCONFIRMED = 'links_resolved_total{source="unconfirmed"}'
ENOUGH_S = 20.0  # a deadline that a busy machine keeps


class World:
    """A process whose way to the database leads through a proxy."""

    def __init__(self, engines: Engines, proxy: DynamoDBProxy, folder: Path) -> None:
        self.engines = engines
        self.proxy = proxy
        self._folder = folder

    def play(self, scenario: Scenario) -> None:
        """Runs a scenario against a process that is ready."""
        engines = replace(self.engines, dynamodb_endpoint=self.proxy.endpoint)
        with process(engines, self._folder) as service:

            async def main() -> None:
                await service.start()
                async with gateway(service) as caller:
                    await scenario(service, caller)

            asyncio.run(main())

    async def store(self, *codes: str) -> None:
        """Links that only the table has."""
        async with open_dynamodb(self.engines.dynamodb.endpoint) as db:
            for code in codes:
                await db.put_item(TableName=LINKS.name, Item=link_to_row(make_link(code)))

    def calls(self, codes: Iterable[str]) -> list[set[str]]:
        """Each call's share of these codes, as far as it asks for their projections. A process that finds a new Redis
        also looks for the links of the session's other tests, which are on the same topic [R8]."""
        wanted = {link_pk(LinkKey(code)): code for code in codes}
        found = []
        for operation, body in list(self.proxy.requests):
            keys = body["RequestItems"][LINKS.name]["Keys"] if operation == "BatchGetItem" else []
            keys += [body["Key"]] if operation == "GetItem" and body["TableName"] == LINKS.name else []
            asked = {key["pk"]["S"] for key in keys if key["sk"]["S"] == META}
            found.append({wanted[pk] for pk in asked & wanted.keys()})
        return [asked for asked in found if asked]

    def reads(self, *codes: str) -> Counter[str]:
        """How often each of these codes was asked for."""
        return Counter(code for call in self.calls(codes) for code in call)


@pytest.fixture
def world(engines: Engines, tmp_path: Path) -> Iterator[World]:
    """Engines of this test alone, and the proxy."""
    with dynamodb_proxy(engines.dynamodb.endpoint) as proxy:
        yield World(engines, proxy, tmp_path)


async def all_of(caller: Gateway, codes: list[str]) -> list[str]:
    """The codes of what ResolveLink answers to so many callers at once."""
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(caller.resolve(code, timeout_s=ENOUGH_S)) for code in codes]
    return [call.result().link.short_code for call in calls]


async def calmly(
    world: World, service: ServiceProcess, caller: Gateway, *, count: int, callers: int = 1
) -> tuple[list[str], list[str]]:
    """New codes, asked for by so many callers each at once, and what these are told. A round in which a busy machine
    missed a deadline of Redis proves nothing: those answers are unconfirmed, and read as often as they are asked."""
    for attempt in range(10):
        codes = [f"round-{attempt}-{number}" for number in range(count)]
        await world.store(*codes)
        before = service.metric(UNCONFIRMED)
        found = await all_of(caller, codes * callers)
        if service.metric(UNCONFIRMED) == before:
            return codes, found
        await SystemClock().sleep(1.1)  # until the breaker closes
    raise AssertionError("this machine is too busy")


@pytest.mark.rule("R3", "R5")
def test_two_hundred_who_miss_one_code_cost_one_read_through_a_gateway_and_at_most_two_without(world: World) -> None:
    """R3: callers of one gateway share its call. Without it, those whom Redis told "absent" before the read was sent
    share it; for those who come after there is one more, however many they are."""
    world.proxy.rule = delayed("BatchGetItem", 0.05)

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        await world.store("shared-1")
        async with asyncio.TaskGroup() as tasks:
            resolver = GrpcResolver(caller.links, clock=SystemClock(), tasks=tasks)
            waiting = [tasks.create_task(_patiently(resolver, "shared-1")) for _ in range(200)]
        calls = service.metric(RESOLVES)
        world.proxy.rule = delayed("BatchGetItem", 0.5)
        (code,), found = await calmly(world, service, caller, count=1, callers=200)

        assert {link.short_code for task in waiting if (link := task.result()) is not None} == {"shared-1"}
        assert found == [code] * 200
        assert 1 <= world.reads("shared-1")["shared-1"] <= calls <= 20, "one, unless a busy machine was late"
        assert 1 <= world.reads(code)[code] <= 2

    world.play(scenario)


@pytest.mark.rule("R3", "R5")
def test_a_hundred_codes_missed_at_once_are_few_calls(world: World) -> None:
    """Misses of one turn of the loop travel together, and those that come while calls are under way leave together;
    each link is read once, and then is in Redis."""
    world.proxy.rule = delayed("BatchGetItem", 0.1)

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        codes, found = await calmly(world, service, caller, count=100)

        assert found == codes
        assert world.reads(*codes) == Counter(codes)
        calls = world.calls(codes)
        assert len(calls) <= 20, "the first four leave at once, the rest in what they bring"
        assert service.metric('link_table_reads_total{kind="batch"}') >= sum(len(call) > 1 for call in calls) > 0
        assert await all_of(caller, codes) == codes

    world.play(scenario)


@pytest.mark.rule("R5", "C1", "P5")
def test_a_throttled_read_is_late_or_503_but_never_404(world: World) -> None:
    """R5: what the database leaves undone is asked for again; what it refuses altogether is 503. When it has room again
    all is as before, and what is really absent is 404."""
    codes = [f"slow-{number}" for number in range(20)]

    async def scenario(_service: ServiceProcess, caller: Gateway) -> None:
        await world.store(*codes)
        world.proxy.rule = unprocessed_reads(times=10, keep=1)
        assert await all_of(caller, codes[:10]) == codes[:10]

        world.proxy.rule = throttled("BatchGetItem", times=100_000)
        for code in (*codes[10:], "nowhere-1"):
            with pytest.raises(Unavailable):
                await caller.resolve(code, timeout_s=ENOUGH_S)

        world.proxy.rule = None
        assert await all_of(caller, codes) == codes
        with pytest.raises(NotFound):
            await caller.resolve("nowhere-1", timeout_s=ENOUGH_S)

    world.play(scenario)


@pytest.mark.rule("R2", "R3")
def test_an_answer_that_is_too_late_for_the_visitor_is_there_for_the_next(world: World) -> None:
    """The gateway gives up after 300 ms; the read goes on, and its answer is filled in under the same lease."""
    world.proxy.rule = delayed("BatchGetItem", 1.0)

    async def scenario(_service: ServiceProcess, caller: Gateway) -> None:
        await world.store("late-1")
        with pytest.raises(ServiceError):
            await caller.resolve("late-1", timeout_s=0.3)

        await until(lambda: _in_redis(world, "late-1"))
        assert world.reads("late-1") == Counter(["late-1"])

    world.play(scenario)


@pytest.mark.rule("C6")
def test_a_request_on_the_topic_warms_the_cache_and_one_that_is_none_is_dropped(world: World) -> None:
    """C6: the consumer reads `read-requests` as any gateway writes them; junk among them holds up nobody."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        await world.store("warm-1")
        async with Producer(world.engines.kafka_bootstrap, client_id="visitor", clock=SystemClock()) as producer:
            messages = [Message(READ_REQUESTS.name, b"warm-1", b"\xff", _headers("warm-1")), _request("warm-1")]
            await until(lambda: _sent(producer, messages), timeout_s=60)

        await until(lambda: _in_redis(world, "warm-1"), timeout_s=60)
        await until(works(lambda: caller.resolve("warm-1")))
        name = 'dead_letters_total{group="cache-refresher",reason="undecodable"}'
        await until(lambda: _at_least(service, name, 1))

    world.play(scenario)


def _headers(code: str) -> tuple[tuple[str, bytes], ...]:
    now = SystemClock().now()
    return tuple(
        event_headers(
            event_id=uuid7(now),
            event_type=ReadRequested.DESCRIPTOR.full_name,
            source="tests",
            time=now,
            subject=code,
            traceparent=None,
        )
    )


def _request(code: str) -> Message:
    value = ReadRequested(link_key=code).SerializeToString()
    return Message(READ_REQUESTS.name, code.encode(), value, _headers(code))


async def _sent(producer: Producer, messages: list[Message]) -> bool:
    return await producer.send_in_order(messages, timeout_s=10) == len(messages)


async def _patiently(resolver: GrpcResolver, code: str) -> Link | None:
    """The answer; whoever is told that it takes too long asks again."""
    while True:
        try:
            return (await resolver.resolve(LinkKey(code))).link
        except ServiceError:
            await SystemClock().sleep(0.01)


async def _in_redis(world: World, code: str) -> bool:
    async with open_redis(world.engines.valkey.url, timeout_s=5) as redis:
        return bool(await redis.exists(url_key(LinkKey(code))))


async def _at_least(service: ServiceProcess, name: str, value: float) -> bool:
    return service.metric(name) >= value
