"""A pipeline of Function calls to a Redis without the library."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from redis.exceptions import ResponseError

from chassis.redis import Redis
from contracts.cache import lead_call
from link_service.adapters.function_library_redis import FunctionLibrary
from link_service.adapters.redis_line import RedisLine


class RefusingRedis:
    """Both sides of a Redis that lost its library after the first command, and takes no new one."""

    async def ask_all(self, commands: Sequence[object]) -> list[object]:
        """The first is done."""
        return [[b"LEADING"], *(ResponseError("Function not found") for _ in commands[1:])]

    async def function_load(self, _body: str) -> None:
        """Not allowed."""
        raise ResponseError("NOPERM this user has no permissions to run the 'function|load' command")


@pytest.mark.rule("P1")
def test_a_library_that_cannot_be_loaded_takes_nothing_from_what_was_done() -> None:
    """P1: who was answered is told so; the failure is of those alone that the library is missing for."""

    async def main() -> None:
        redis = RefusingRedis()
        library = FunctionLibrary(cast("Redis", redis))

        done, refused = await library.call_all(cast("RedisLine", redis), [lead_call("a", lease_ms=1)] * 2)

        assert done == ("LEADING", b"")
        assert isinstance(refused, ResponseError)

    asyncio.run(main())
