"""link_service as it runs: its own process, a real channel, real engines."""

import asyncio

import grpc
import pytest

from chassis.clock import SystemClock
from chassis.dynamodb import open_dynamodb
from chassis.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from chassis.redis import open_redis
from contracts.cache import encode_entry, lease_key, url_key
from contracts.codes import ID_BLOCK
from contracts.link import EventId, LinkKey, UserId
from contracts.link_rows import Reservation, reservation_to_row
from contracts.tables import LINKS
from link_service.adapters.cache_server_redis import RedisCacheServer
from link_service.adapters.redis_line import RedisLine
from shortener.key.v1 import key_service_pb2 as key_pb
from shortener.link.v1 import link_pb2
from shortener.link.v1 import link_service_pb2 as pb
from shortener.link.v1 import link_service_pb2_grpc as rpc
from tests.fakes.link_events import make_link
from tests.integration.link_service.running import (
    URL,
    Engines,
    Gateway,
    Play,
    ServiceProcess,
    the_writer_catches_up,
    until,
    works,
)


@pytest.mark.rule("K1", "R1")
def test_a_link_lives_and_ends(play: Play) -> None:
    """Create, resolve, get, delete, resolve: each step sees the one before it at once, and the process drains well."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        made = (await caller.create()).link
        assert (made.long_url, made.version, made.user_id) == (URL, 1, "ada")
        assert (await caller.resolve(made.short_code)).link == made
        ended = (await caller.delete(made.short_code)).link

        assert (await caller.resolve(made.short_code)).link == ended
        assert ended.state == link_pb2.LINK_STATE_DELETED
        assert (await caller.delete(made.short_code)).link == ended
        with pytest.raises(NotFound):
            await caller.resolve("none-1")
        assert service.metric('links_created_total{kind="generated"}') == 1
        await until(lambda: _has_ids(service, 2 * ID_BLOCK - 1))
        assert service.stop() == 0

    play(scenario)


def test_errors_have_their_reasons_and_fields(play: Play) -> None:
    """Bad input is refused with a documented reason and every field that is wrong, over the wire."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        bad = pb.CreateLinkRequest(
            principal=caller.principal, long_url="http://0x7f.1/", custom_code="api", title="t" * 201
        )
        with pytest.raises(InvalidArgument) as caught:
            await caller.links.CreateLink(bad, timeout=5)

        assert caught.value.reason == "invalid_long_url"
        assert [violation.field for violation in caught.value.fields] == ["long_url", "custom_code", "title"]

    play(scenario)


def test_api_keys_open_their_account_and_nothing_else(play: Play) -> None:
    """A public caller with a Bearer key acts for its account; without one, or by a stated principal, nobody does."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        key = await caller.keys.CreateKey(key_pb.CreateKeyRequest(user_id="eve", scopes=["links:write"]), timeout=5)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            links = rpc.LinkServiceStub(channel)
            bearer = (("authorization", f"Bearer {key.secret}"),)

            made = (await links.CreateLink(pb.CreateLinkRequest(long_url=URL), metadata=bearer, timeout=5)).link

            assert made.user_id == "eve"
            ada = pb.CreateLinkRequest(long_url=URL, principal=caller.principal)
            for request, metadata, status in (
                (pb.CreateLinkRequest(long_url=URL), (), grpc.StatusCode.UNAUTHENTICATED),
                (ada, bearer, grpc.StatusCode.PERMISSION_DENIED),
                (pb.CreateLinkRequest(long_url=URL), (("authorization", "Bearer x"),), grpc.StatusCode.UNAUTHENTICATED),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await links.CreateLink(request, metadata=metadata, timeout=5)
                assert caught.value.code() is status
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await links.GetLink(pb.GetLinkRequest(short_code=made.short_code), metadata=bearer, timeout=5)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED  # the key lacks links:read
        with pytest.raises(Unauthenticated):
            await caller.keys.VerifyKey(key_pb.VerifyKeyRequest(secret="lk_live_junk"), timeout=5)
        with pytest.raises(PermissionDenied):
            await caller.keys.CreateKey(key_pb.CreateKeyRequest(user_id="eve", principal=caller.principal), timeout=5)

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_of_many_concurrent_creates_of_a_code_one_wins(play: Play) -> None:
    """K2: one link; everybody else is told that the code is taken."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        await until(works(lambda: caller.create("warm-1")))

        async def attempt(number: int) -> str:
            try:
                return (await caller.create("wanted", user_id=f"user-{number}")).link.user_id
            except AlreadyExists as exc:
                return exc.reason

        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(attempt(number)) for number in range(8)]

        told = [task.result() for task in answers]
        winners = [answer for answer in told if answer != "custom_code_taken"]
        assert len(winners) == 1, told
        assert (await caller.resolve("wanted")).link.user_id == winners[0]

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_after_a_kill_between_reservation_and_mutation(play: Play, engines: Engines) -> None:
    """K2: the owner takes its code over; a stranger gets 409 while the older create could stand in the outbox."""

    async def scenario(service: ServiceProcess, caller: Gateway) -> None:
        clock = SystemClock()
        async with open_redis(engines.valkey.url, timeout_s=5) as redis, open_dynamodb(engines.dynamodb.endpoint) as db:
            run_id = await RedisCacheServer(RedisLine(redis, clock=clock, timeout_s=5)).run_id()
            for code, run in (("killed-1", run_id), ("killed-2", "an older run")):
                left = Reservation(
                    key=LinkKey(code),
                    user_id=UserId("ada"),
                    event_id=EventId(make_link(code).event_id),
                    at=clock.now(),
                    redis_run_id=run,
                )
                await db.put_item(TableName=LINKS.name, Item=reservation_to_row(left))
            assert (await caller.create("killed-1")).link.user_id == "ada"

            await redis.set("relay:leader", "nobody", px=60_000)  # the outbox stands still
            await until(lambda: _leads_no_more(service))
            blocking = encode_entry(make_link("killed-2"))
            await redis.xadd(_outbox_of("killed-2"), {"e": blocking})
            with pytest.raises(AlreadyExists):
                await caller.create("killed-2", user_id="eve")
            await redis.delete(_outbox_of("killed-2"))
            await the_writer_catches_up(engines.kafka_bootstrap)

            assert (await caller.create("killed-2", user_id="eve")).link.user_id == "eve"
            assert not await redis.exists(lease_key(LinkKey("killed-2")))

    play(scenario)


async def _has_ids(service: ServiceProcess, number: int) -> bool:
    return service.metric("ids_left") == number


async def _leads_no_more(service: ServiceProcess) -> bool:
    return service.metric("relay_leading") == 0


def _outbox_of(code: str) -> str:
    return url_key(LinkKey(code)).replace("url:", "outbox:").split(":" + code)[0]
