"""The way to a real Redis: our own standstill is not its fault, its own is, and a pipeline is many single commands."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from redis.exceptions import ResponseError

from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.redis import open_redis
from link_service.adapters.redis_line import OUTCOME_UNKNOWN, UNAVAILABLE, RedisLine
from linkmesh.local.engines import ValkeyEngine

READ_S = 0.25  # five times the product's own: a busy machine may leave Redis without CPU for 50 ms
Loop = Callable[[Awaitable[None]], None]
LOOPS = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]


def stand_still(seconds: float) -> None:
    """What a long computation does to everybody in the loop."""
    time.sleep(seconds)


@pytest.mark.rule("R7")
@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("standstill_s", [2 * READ_S, 4 * READ_S])
def test_a_loop_that_stood_still_while_redis_answered_gets_the_answer(
    valkey: ValkeyEngine, run: Loop, standstill_s: float
) -> None:
    """A command in flight, its time-out passes while our loop is blocked: an answer, and no open breaker.
    The same for one that is sent at the end of such a turn, and for one that needs a new connection."""

    async def main() -> None:
        async with open_redis(valkey.url, timeout_s=READ_S) as client:
            line = RedisLine(client, clock=SystemClock(), timeout_s=READ_S)
            await line.ask("PING")
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(line.ask("ECHO", str(number))) for number in range(3)]
                while len(client.connection_pool._in_use_connections) < 3:
                    await asyncio.sleep(0)
                stand_still(standstill_s)
                stand_still_first = tasks.create_task(still_then_ask(line, standstill_s))

            assert [task.result() for task in asked] == [b"0", b"1", b"2"]
            assert stand_still_first.result() == b"late"
            assert await line.ask("PING") == b"PONG"

    async def still_then_ask(line: RedisLine, seconds: float) -> object:
        stand_still(seconds)
        return await line.ask("ECHO", "late")

    run(main())


@pytest.mark.rule("R7")
@pytest.mark.parametrize("run", LOOPS)
def test_a_redis_that_hangs_is_found_out_in_spite_of_a_standstill(valkey_fresh: ValkeyEngine, run: Loop) -> None:
    """Ours and Redis' together: it is given its whole time behind our standstill, then the breaker opens, and nobody
    waits for so much as a turn of the loop."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=READ_S) as client:
            line = RedisLine(client, clock=SystemClock(), timeout_s=READ_S)
            await line.ask("PING")
            valkey_fresh.pause()
            try:
                started = time.monotonic()
                asking = asyncio.ensure_future(line.ask("PING"))
                await asyncio.sleep(0)
                stand_still(4 * READ_S)
                with pytest.raises(Unavailable):
                    await asking
                took_s = time.monotonic() - started
                with pytest.raises(Unavailable):
                    line.ask("PING").send(None)  # a coroutine that waits for anything gives something back here
                assert 4.7 * READ_S < took_s < 40 * READ_S, "its time, 1.8 times that at most, and the machine's"
            finally:
                valkey_fresh.resume()

    run(main())


def test_a_pipeline_gives_each_command_its_own_reply(valkey: ValkeyEngine) -> None:
    """In order, whatever types they are; a refusal is one command's, and the connection stays good."""

    async def main() -> None:
        async with open_redis(valkey.url, timeout_s=5) as client:
            line = RedisLine(client, clock=SystemClock(), timeout_s=5)
            large = b"\r\n" * 100_000
            replies = await line.ask_all(
                [
                    ("SET", "{line}a", large),
                    ("GET", "{line}a"),
                    ("LPUSH", "{line}a", "x"),
                    ("GET", "{line}none"),
                    ("INCR", "{line}n"),
                    ("NO-SUCH-COMMAND",),
                    ("HSET", "{line}h", "f", "v"),
                    ("HGETALL", "{line}h"),
                    ("EVAL", "return {1, 'two', {3}, false}", 0),
                ]
            )
            assert replies[:2] == [b"OK", large]
            assert isinstance(replies[2], ResponseError)
            assert str(replies[2]).startswith("WRONGTYPE")
            assert replies[3] is None
            assert isinstance(replies[4], int)
            assert isinstance(replies[5], ResponseError)
            assert replies[7:] == [{b"f": b"v"}, [1, b"two", [3], None]]
            assert await line.ask("PING") == b"PONG"
            await line.ask("DEL", "{line}a", "{line}n", "{line}h")

    asyncio.run(main())


@pytest.mark.rule("R1", "P1")
def test_a_redis_killed_in_the_middle_of_a_pipeline_leaves_each_command_its_own_truth(
    valkey_fresh: ValkeyEngine,
) -> None:
    """What was answered is known, what was sent and not answered is unknown, later ones were never sent; and none comes
    twice: after the restart each counter stands at one at most, and at one where it was answered."""

    async def main() -> None:
        async with open_redis(valkey_fresh.url, timeout_s=5) as client:
            line = RedisLine(client, clock=SystemClock(), timeout_s=5, unknown=OUTCOME_UNKNOWN)
            await line.ask("PING")
            slow = [("EVAL", "return redis.call('INCR', KEYS[1])", 1, f"n{number}") for number in range(2000)]
            async with asyncio.TaskGroup() as tasks:
                asking = [tasks.create_task(line.ask_all(slow[place : place + 100])) for place in range(0, 2000, 100)]
                while sum(task.done() for task in asking) < 3:
                    await asyncio.sleep(0)
                valkey_fresh.kill()
            replies = [reply for task in asking for reply in task.result()]
            later = await line.ask_all([("INCR", "n0")])

            await valkey_fresh.start()
            stored = [int(await client.get(f"n{number}") or 0) for number in range(2000)]

        assert [reply.reason for reply in later if isinstance(reply, Unavailable)] == [UNAVAILABLE]
        told = [reply.reason if isinstance(reply, Unavailable) else reply for reply in replies]
        assert {1, OUTCOME_UNKNOWN} <= set(told) <= {1, OUTCOME_UNKNOWN, UNAVAILABLE}
        allowed = {1: {1}, OUTCOME_UNKNOWN: {0, 1}, UNAVAILABLE: {0}}
        assert [stored[number] for number, what in enumerate(told) if stored[number] not in allowed[what]] == []

    asyncio.run(main())


@pytest.mark.rule("R7")
def test_a_pool_that_is_used_up_is_not_a_redis_that_hangs(valkey: ValkeyEngine) -> None:
    """R7: what shares the pool, such as the look at Redis' memory each second, may leave a busy line one connection
    short: that command is refused, and not all others for a second."""

    async def main() -> None:
        async with open_redis(valkey.url, timeout_s=5, connections_max=1) as client:
            line = RedisLine(client, clock=SystemClock(), timeout_s=5, unknown=OUTCOME_UNKNOWN)
            taken = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # the library forgot
            with pytest.raises(Unavailable) as refused:
                await line.ask("PING")
            await client.connection_pool.release(taken)

            assert refused.value.reason == UNAVAILABLE
            assert await line.ask("PING") == b"PONG"

    asyncio.run(main())
