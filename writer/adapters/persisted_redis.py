"""Tells Redis what the tables hold, by the Function `persisted` [R4]."""

import asyncio
from collections.abc import Sequence

from redis.exceptions import ResponseError

from chassis.errors import Unavailable
from chassis.redis import Redis, redis_errors
from contracts.cache import persisted_call
from contracts.link import Link


class RedisPersistedMarker:
    """PersistedMarker on Redis: one pipeline a batch. `timeout_s` bounds the batch."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    async def persisted(self, links: Sequence[Link]) -> None:
        """Marks these versions as persisted."""
        pipeline = self._redis.pipeline(transaction=False)
        for link in links:
            pipeline.execute_command("FCALL", *persisted_call(link).arguments)
        with redis_errors():
            async with asyncio.timeout(self._timeout_s):
                replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, ResponseError):  # the library is not loaded yet, or Redis is out of memory
                raise Unavailable("unavailable", "Redis does not take the mark.", retry_after_s=1) from reply
            if isinstance(reply, Exception):
                raise reply
