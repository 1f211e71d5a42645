"""Values of links from Redis: all lookups of one turn of the event loop in one MGET.

A lookup alone costs this process about 80 µs, one of a batch of sixteen about a tenth; and the busier the loop, the
more requests a turn holds. No lookup joins an MGET that was sent before it began [P2].
"""

import asyncio

from prometheus_client import Counter
from redis.exceptions import ResponseError

from chassis.breaker import Breaker
from chassis.errors import Unavailable
from chassis.redis import Redis, redis_errors
from contracts.cache import decode_entry, url_key
from contracts.link import Link, LinkKey
from contracts.link_codec import UndecodableError

TIMEOUT_S = 0.05  # [R7] a Redis that is slower than this helps no visitor
_BATCH_MAX = 512  # keys of one MGET: a longer one would hold up Redis' other clients
_IN_FLIGHT_MAX = 8  # MGETs at a time, each on a connection of its own
_WAITING_MAX = 8192  # lookups; beyond, Redis is as good as away

CORRUPT = Counter("link_cache_corrupt_total", "Values in Redis that could not be decoded; treated as absent")


class RedisLinkCache:
    """A LinkCache. `tasks` runs the MGETs and outlives this object."""

    def __init__(
        self, redis: Redis, *, breaker: Breaker, tasks: asyncio.TaskGroup, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._timeout_s = timeout_s
        self._redis = redis
        self._breaker = breaker
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[LinkKey, asyncio.Future[bytes | None]]] = []
        self._in_flight = 0

    async def get(self, key: LinkKey) -> Link | None:
        """The newest acknowledged version; None: absent or corrupt.

        Raises:
            Unavailable: no answer in 50 ms, or not asked.
        """
        if not self._breaker.admit() or len(self._waiting) >= _WAITING_MAX:
            raise Unavailable("unavailable", "Redis is not asked for the moment.", retry_after_s=1)
        answer: asyncio.Future[bytes | None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append((key, answer))
        value = await answer
        if value is None:
            return None
        try:
            return decode_entry(value)
        except UndecodableError:
            CORRUPT.inc()
            return None

    def _send(self) -> None:
        """Sends what is waiting, as far as there are connections; the rest goes when one is free again."""
        while self._waiting and self._in_flight < _IN_FLIGHT_MAX:
            batch, self._waiting = self._waiting[:_BATCH_MAX], self._waiting[_BATCH_MAX:]
            self._in_flight += 1
            self._tasks.create_task(self._fetch(batch), name="mget")

    async def _fetch(self, batch: list[tuple[LinkKey, asyncio.Future[bytes | None]]]) -> None:
        try:
            values = await self._mget([url_key(key) for key, _ in batch])
        except Unavailable as exc:
            self._breaker.failed()
            late, self._waiting = self._waiting, []
            for _, answer in (*batch, *late):  # those behind would only wait for the same hung Redis
                if not answer.done():
                    answer.set_exception(Unavailable(exc.reason, exc.message, retry_after_s=exc.retry_after_s))
        else:
            self._breaker.succeeded()
            for (_, answer), value in zip(batch, values, strict=True):
                if not answer.done():  # its request was cancelled
                    answer.set_result(value)
        finally:
            self._in_flight -= 1
            self._send()

    async def _mget(self, keys: list[str]) -> list[bytes | None]:
        try:
            with redis_errors():
                async with asyncio.timeout(self._timeout_s):
                    values = await self._redis.mget(keys)
                    return [value if isinstance(value, bytes) else None for value in values]
        except ResponseError as exc:  # such as a password that is wrong: for us it is away
            raise Unavailable("unavailable", "Redis refuses to answer.", retry_after_s=1) from exc
