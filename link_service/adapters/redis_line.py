"""One way to Redis: a pool with a deadline and a breaker [R7], which tells "never sent" from "sent, and no answer".

redis-py's own `execute_command` does not let go of that difference: whether a mutation can have happened is exactly
what its caller has to know.
"""

import asyncio

from redis import exceptions

from chassis.breaker import Breaker
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.redis import Redis, redis_errors

_RETRY_AFTER_S = 1.0  # the breaker's time
UNAVAILABLE = "unavailable"
OUTCOME_UNKNOWN = "outcome_unknown"


class RedisLine:
    """Commands with one deadline, which includes waiting for a connection. After a time-out nobody waits for 1 s.

    `client`: its pool must have at least `in_flight_max` connections. `unknown`: the reason that is told when a command
    was sent and not answered; reads have nothing to be unknown.
    """

    def __init__(
        self, client: Redis, *, clock: Clock, timeout_s: float, in_flight_max: int = 64, unknown: str = UNAVAILABLE
    ) -> None:
        self._client = client
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
        if not self._breaker.admit():
            raise Unavailable(UNAVAILABLE, "Redis does not answer.", retry_after_s=_RETRY_AFTER_S)
        sent = False
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # the library forgot
                try:
                    sent = True
                    await connection.send_command(*command)
                    reply: object = await connection.read_response()
                finally:
                    await self._client.connection_pool.release(connection)
        except (exceptions.ResponseError, exceptions.BusyLoadingError):
            self._breaker.succeeded()
            with redis_errors():
                raise
        except (exceptions.RedisError, OSError, TimeoutError) as exc:
            self._breaker.failed()
            reason = self._unknown if sent else UNAVAILABLE
            raise Unavailable(reason, "Redis does not answer.", retry_after_s=_RETRY_AFTER_S) from exc
        self._breaker.succeeded()
        return reply
