"""One way to Redis: a pool with a deadline and a breaker [R7], which tells "never sent" from "sent, and no answer".

redis-py's own `execute_command` does not let go of that difference: whether a mutation can have happened is exactly
what its caller has to know. Connections and their handshake are redis-py's; what goes over them is not.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from chassis.breaker import Breaker
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.redis import Redis, redis_errors
from chassis.redis_wire import Command, Replies, pack
from link_service.adapters.patience import Patience

_RETRY_AFTER_S = 1.0  # the breaker's time
_READ_BYTES = 1 << 16
UNAVAILABLE = "unavailable"
OUTCOME_UNKNOWN = "outcome_unknown"


@dataclass(slots=True)
class _Exchange:
    """Commands of one pipeline, and how far it came."""

    commands: Sequence[Command]
    sent: bool = False
    replies: list[object] = field(default_factory=list)


class RedisLine:
    """Commands with one deadline, which includes waiting for a connection. After a time-out nobody waits for 1 s.

    `client`: its pool must have `in_flight_max` connections, and some for whoever else uses it. `unknown`: the reason
    that is told when a command was sent and not answered; reads have nothing to be unknown.
    """

    def __init__(
        self, client: Redis, *, clock: Clock, timeout_s: float, in_flight_max: int = 64, unknown: str = UNAVAILABLE
    ) -> None:
        self._pool = client.connection_pool
        self._clock = clock
        self._timeout_s = timeout_s
        self._breaker = Breaker(clock)
        self._places = asyncio.Semaphore(in_flight_max)
        self._unknown = unknown

    async def ask(self, *command: bytes | str | int) -> object:
        """The reply as it came, never re-sent.

        Raises:
            Unavailable: never sent or refused (reason `unavailable`); sent and not answered (reason `unknown`).
            redis.exceptions.ResponseError: refused for what the command says.
        """
        (reply,) = await self.ask_all([command])
        if isinstance(reply, Unavailable | exceptions.ResponseError):
            raise reply
        return reply

    async def ask_all(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands of one pipeline, in their order, never re-sent. What `ask` would raise of one of them
        is its value here: a refusal, or a connection that breaks in between, is not the others' affair."""
        if not self._breaker.admit():
            return [_no_answer(UNAVAILABLE) for _ in commands]
        exchange = _Exchange(commands)
        try:
            async with Patience(self._timeout_s, self._clock) as patience, self._places:
                await self._exchange(exchange, patience)
        except (exceptions.RedisError, OSError, TimeoutError) as exc:
            if not isinstance(exc, exceptions.MaxConnectionsError):  # which says nothing of Redis
                self._breaker.failed()
            reason = self._unknown if exchange.sent else UNAVAILABLE
            exchange.replies += [_no_answer(reason, exc) for _ in commands[len(exchange.replies) :]]
        else:
            self._breaker.succeeded()
        return [_told(reply) if isinstance(reply, exceptions.RedisError) else reply for reply in exchange.replies]

    async def _exchange(self, exchange: _Exchange, patience: Patience) -> None:
        connection = await self._connected(patience)
        try:
            await _converse(connection, exchange)
        except BaseException:
            await connection.disconnect(nowait=True)  # replies that are still to come are nobody's
            raise
        finally:
            await self._pool.release(connection)

    async def _connected(self, patience: Patience) -> AbstractConnection:
        """A connection. Making one has time-outs of redis-py's own, which are not told of our standstills: nothing was
        sent yet, so it is tried again after one."""
        while True:
            excused = patience.excused
            try:
                return await self._pool.get_connection()  # type: ignore[no-any-return, no-untyped-call]  # the library forgot
            except exceptions.TimeoutError:
                if patience.excused == excused:
                    raise


async def _converse(connection: AbstractConnection, exchange: _Exchange) -> None:
    """Writes all commands at once and reads until each has its reply.

    Raises:
        RedisError, OSError: the connection ended, or what came is no reply; the replies until then are kept.
    """
    reader, writer = connection._reader, connection._writer  # noqa: SLF001 (the library reads one reply a time, in 23 µs)
    assert reader is not None, "the pool gives out what is connected"
    assert writer is not None, "the pool gives out what is connected"
    exchange.sent = True
    writer.write(pack(exchange.commands))
    await writer.drain()
    replies = Replies()
    while len(exchange.replies) < len(exchange.commands):
        data = await reader.read(_READ_BYTES)
        if not data:
            raise exceptions.ConnectionError("Redis closed the connection")
        replies.feed(data)
        exchange.replies += replies.take()
    if len(exchange.replies) > len(exchange.commands) or not replies.is_empty:
        exchange.replies.clear()  # which of them are the answers?
        raise exceptions.InvalidResponse("more came than was asked for")


def _no_answer(reason: str, cause: Exception | None = None) -> Unavailable:
    failure = Unavailable(reason, "Redis does not answer.", retry_after_s=_RETRY_AFTER_S)
    failure.__cause__ = cause
    return failure


def _told(refusal: exceptions.RedisError) -> Unavailable | exceptions.ResponseError:
    """A refusal as `ask` raises it."""
    try:
        with redis_errors():
            raise refusal
    except (Unavailable, exceptions.ResponseError) as told:
        return told
