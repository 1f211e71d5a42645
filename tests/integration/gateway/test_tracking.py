"""Links kept in a gateway's memory, and a real Redis that tells of changes, hangs, dies, or is emptied."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from redis import Redis as BlockingRedis

from contracts.cache import IDS_HIGH, encode_entry, url_key
from contracts.codes import NEVER_ISSUED_MARGIN
from contracts.link import LinkKey, LinkState
from gateway.domain.near_cache import LIFE_S
from gateway.handlers.lookups import Source
from linkmesh.local.engines import ValkeyEngine
from tests.fakes.gateway_peers import make_link
from tests.integration.gateway.tracked import CODES, Rig, open_rig, until

LINK = make_link()
CHANGED = replace(LINK, version=2, long_url="https://example.com/elsewhere")
DELETED = replace(LINK, version=2, state=LinkState.DELETED)


def run(scenario: object, engine: ValkeyEngine) -> None:
    """Runs a scenario on a rig."""

    async def main() -> None:
        async with open_rig(engine) as rig:
            assert callable(scenario)
            await scenario(rig)

    asyncio.run(main())


async def tracking_ids(rig: Rig) -> list[str]:
    """The connections that hear of changes, as Redis names them."""
    return [client["id"] for client in await rig.redis.client_list(_type="pubsub")]


@pytest.mark.rule("L1", "L2", "P2")
def test_a_change_is_told_and_what_was_kept_goes(valkey_fresh: ValkeyEngine) -> None:
    """Whoever changes a link in Redis, it is not served from memory any more; nor what expires there."""

    async def scenario(rig: Rig) -> None:
        await rig.store(LINK)
        await rig.keep(LINK)
        assert (await rig.look(LINK.key)).source is Source.NEAR

        await rig.store(CHANGED)
        await until(lambda: not rig.served(LINK))
        await rig.keep(CHANGED)
        await rig.redis.pexpire(url_key(LINK.key), 1)
        await until(lambda: not rig.served(CHANGED))

    run(scenario, valkey_fresh)


@pytest.mark.rule("L2")
def test_a_channel_that_is_cut_is_made_anew_and_begins_with_nothing(valkey_fresh: ValkeyEngine) -> None:
    """What was changed between the two is not served afterwards: nothing of before the new subscription is."""

    async def scenario(rig: Rig) -> None:
        await rig.store(LINK)
        await rig.keep(LINK)
        for number in range(5):
            (old,) = await tracking_ids(rig)
            async with rig.redis.pipeline(transaction=True) as pipe:  # nobody is told of this change
                pipe.client_kill_filter(_id=old)
                link = replace(LINK, version=number + 2, long_url=f"https://example.com/{number}")
                pipe.set(url_key(LINK.key), encode_entry(link))
                await pipe.execute()
            await rig.keep(link)

        assert not rig.served(LINK)

    run(scenario, valkey_fresh)


@pytest.mark.rule("L2", "L4", "R7")
def test_a_redis_that_hangs_is_believed_for_five_seconds(valkey_fresh: ValkeyEngine) -> None:
    """Its last beat counts: then nothing is served from memory but by error, and what it did while it hung is seen when
    it is back."""

    async def scenario(rig: Rig) -> None:
        await rig.store(LINK)
        await rig.keep(LINK)
        rig.resolver.links[LINK.key] = CHANGED
        began = time.monotonic()
        valkey_fresh.pause()
        try:
            await until(lambda: not rig.served(LINK))
            served_s = time.monotonic() - began
            assert (await rig.look(LINK.key)).link == CHANGED  # link_service knows it
            rig.resolver.away = True
            stale = await rig.look(LINK.key)
            assert (stale.source, stale.link) == (Source.STALE, LINK)
            assert rig.read_requests.keys == [LINK.key]
        finally:
            valkey_fresh.resume()
        await rig.store(DELETED)

        async with asyncio.timeout(20):
            while (looked := await rig.look(LINK.key)).source is Source.STALE or looked.link != DELETED:
                await asyncio.sleep(0.01)
        assert served_s < LIFE_S + 2  # a loop that turns late notices late
        assert not rig.served(LINK)

    run(scenario, valkey_fresh)


@pytest.mark.rule("L2", "R8", "P2")
def test_a_redis_that_was_restarted_brings_nothing_back(valkey_fresh: ValkeyEngine) -> None:
    """What was deleted while it was away, from the table's side, is not served again from memory."""

    async def scenario(rig: Rig) -> None:
        await rig.store(LINK)
        await rig.keep(LINK)
        valkey_fresh.kill()
        await valkey_fresh.start()
        await rig.store(DELETED)
        async with asyncio.timeout(20):
            while (await rig.look(LINK.key)).link != DELETED:
                await asyncio.sleep(0.01)

        assert not rig.served(LINK)

    run(scenario, valkey_fresh)


@pytest.mark.rule("L1")
def test_an_emptied_redis_empties_the_memory(valkey_fresh: ValkeyEngine) -> None:
    """FLUSHALL names no keys, and means all."""

    async def scenario(rig: Rig) -> None:
        others = [make_link(f"other{number:02d}") for number in range(10)]
        for link in others:
            await rig.store(link)
            await rig.keep(link)
        await rig.redis.flushall()

        await until(lambda: not any(rig.served(link) for link in others))

    run(scenario, valkey_fresh)


@pytest.mark.rule("L2", "P2")
def test_a_loop_that_stood_still_serves_nothing_before_it_has_heard(valkey_fresh: ValkeyEngine) -> None:
    """As by SIGSTOP: a link is changed meanwhile. The first thing that happens afterwards may be a request, or the
    loop's own timer: neither sees the old link, and soon the memory serves again."""

    async def scenario(rig: Rig) -> None:
        other = make_link("another")
        await rig.store(other)
        for number in range(10):
            link = replace(LINK, version=number + 1, long_url=f"https://example.com/{number}")
            after = replace(LINK, version=number + 2, long_url=f"https://example.com/{number + 1}")
            await rig.store(link)
            await rig.keep(link)
            await rig.keep(other)
            with BlockingRedis(port=valkey_fresh.port) as blocking:
                changer = threading.Thread(target=lambda: blocking.set(url_key(LINK.key), encode_entry(after)))  # noqa: B023 (joined below)
                changer.start()
                time.sleep(0.15)  # noqa: ASYNC251 (the loop stands still: the point)
                changer.join()
            seen = [rig.served(link)]
            for _ in range(50):
                await asyncio.sleep(0)
                seen.append(rig.served(link))

            assert not any(seen)
            await until(lambda: rig.served(other))

    run(scenario, valkey_fresh)


@pytest.mark.rule("L5")
def test_the_mark_of_issued_ids_is_learned_and_guesses_cost_nothing(valkey_fresh: ValkeyEngine) -> None:
    """As long as it is unknown all codes are looked up; then those far beyond it are not, and never the others."""

    async def scenario(rig: Rig) -> None:
        mark = 5 << 20
        far, near = (LinkKey(CODES.code_of(mark + NEVER_ISSUED_MARGIN + offset)) for offset in (0, -1))
        assert (await rig.look(far)).source is not Source.NEVER_ISSUED
        await rig.redis.set(IDS_HIGH, mark)
        async with asyncio.timeout(20):
            while (await rig.look(far)).source is not Source.NEVER_ISSUED:
                await asyncio.sleep(0.01)
        asked = len(rig.resolver.asked)

        assert (await rig.look(far)).link is None
        assert len(rig.resolver.asked) == asked
        assert (await rig.look(near)).source is Source.LINK_SERVICE
        assert rig.resolver.asked[asked:] == [near]

    run(scenario, valkey_fresh)


@pytest.mark.rule("L2")
def test_while_it_works_it_says_so(valkey_fresh: ValkeyEngine) -> None:
    """An operator sees whether changes are heard of."""

    async def scenario(rig: Rig) -> None:
        await rig.store(LINK)
        await rig.keep(LINK)
        assert REGISTRY.get_sample_value("near_links_tracked") == 1
        assert REGISTRY.get_sample_value("near_links") == 1
        valkey_fresh.kill()
        await until(lambda: REGISTRY.get_sample_value("near_links_tracked") == 0)

    run(scenario, valkey_fresh)
