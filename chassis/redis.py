"""A Redis connection with deadlines and no hidden retries, and its errors as ours."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import redis.asyncio as redis_asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chassis.errors import Unavailable

Redis = redis_asyncio.Redis
# Error replies that are about the server's state, not about the command: nothing was done, and later it will be.
_AWAY = ("MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "UNBLOCKED", "BUSY ", "OOM ", "READONLY ")


@contextlib.asynccontextmanager
async def open_redis(
    url: str, *, timeout_s: float, connections_max: int = 64, protocol: int = 3
) -> AsyncIterator[Redis]:
    """A pool of connections, opened as they are needed. Every reply has timeout_s; nothing is sent twice by itself.
    `protocol`: version of RESP; by 2 nothing comes that is neither a reply nor subscribed to."""
    client = redis_asyncio.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=connections_max,
        protocol=protocol,
        decode_responses=False,
        driver_info=None,  # telling it cost 2 ms of CPU a connection: a burst of 32 took 80 ms, more than a read may
    )
    async with client:
        yield client


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Turns what Redis or the way to it raises into Unavailable; other error replies pass, the caller knows them.

    Raises:
        Unavailable: refused, hung, loading, out of memory, or in a state in which it takes no writes.
    """
    try:
        yield
    except exceptions.ResponseError as exc:
        if isinstance(exc, exceptions.OutOfMemoryError | exceptions.ReadOnlyError) or str(exc).startswith(_AWAY):
            raise Unavailable("unavailable", "Redis takes no writes.", retry_after_s=1) from exc
        raise
    except (exceptions.RedisError, OSError, TimeoutError) as exc:
        raise Unavailable("unavailable", "Redis does not answer.", retry_after_s=1) from exc
