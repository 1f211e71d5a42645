"""A connection to Redis whose replies come by call-back. The handshake is redis-py's; then the transport is ours."""

import asyncio
from collections.abc import Callable
from typing import cast

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from chassis.errors import Unavailable
from chassis.redis import Redis, redis_errors
from chassis.redis_wire import Replies


class RedisConnection(asyncio.Protocol):
    """An open one. `received` and `ended` are to be set before anything is sent; they are called by the transport, and
    `ended` at most once, not after `close`. `run` names the run of Redis behind it [R8]."""

    def __init__(self, connection: AbstractConnection, run: str) -> None:
        self.run = run
        self.received: Callable[[list[object]], None] = _ignore
        self.ended: Callable[[], None] = _ignore_end
        self._connection = connection
        self._replies = Replies()
        writer = connection._writer  # noqa: SLF001 (the library has no way to hand its transport over)
        assert writer is not None, "it is connected"
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def send(self, data: bytes) -> None:
        """Writes packed commands."""
        self._transport.write(data)

    def close(self) -> None:
        """Ends it at once, whatever is still to be written or read."""
        self.ended = _ignore_end
        self.received = _ignore
        self._transport.abort()
        self._forget()

    def data_received(self, data: bytes) -> None:
        """Replies, or parts of them."""
        self._replies.feed(data)
        try:
            replies = self._replies.take()
        except exceptions.InvalidResponse:
            ended = self.ended
            self.close()
            ended()
            return
        if replies:
            self.received(replies)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the interface of asyncio)
        """It is over."""
        self._forget()
        ended, self.ended = self.ended, _ignore_end
        ended()

    def _forget(self) -> None:
        """redis-py's object would complain of its open transport, which is not its own any more."""
        self._connection._reader = self._connection._writer = None  # noqa: SLF001


async def connect(client: Redis, *, timeout_s: float) -> RedisConnection:
    """A new connection as the client's pool would make it, not of the pool: whoever has it closes it.

    Raises:
        Unavailable: not within timeout_s, or refused.
    """
    connection = cast("AbstractConnection", client.connection_pool.make_connection())  # type: ignore[no-untyped-call]  # the library forgot
    connected = False
    try:
        with redis_errors():
            async with asyncio.timeout(timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # the library forgot
                await connection.send_command("INFO", "server", "replication")
                info = await connection.read_response()
        connected = True
    except exceptions.ResponseError as exc:  # such as an account that may not ask: for us it is away
        raise Unavailable("unavailable", "Redis refuses to answer.", retry_after_s=1) from exc
    finally:
        if not connected:
            await connection.disconnect(nowait=True)
    return RedisConnection(connection, _run_of(info))


def _run_of(info: object) -> str:
    """As link_service names it: a master that was a replica meanwhile keeps its run id, but not its replication id."""
    found = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line) if isinstance(info, bytes) else {}
    run = found.get(b"run_id", b"") + b":" + found.get(b"master_replid", b"")
    return run.decode("ascii", "replace")


def _ignore(_replies: list[object]) -> None:
    """Nobody listens."""


def _ignore_end() -> None:
    """Nobody waits for the end."""
