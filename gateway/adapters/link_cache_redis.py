"""Values of links from Redis: all lookups of one turn of the event loop in one MGET.

A lookup alone costs this process about 80 µs, one of a batch of sixteen about a tenth; and the busier the loop, the
more requests a turn holds. No lookup joins an MGET that was sent before it began [P2].
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from chassis.breaker import Breaker
from chassis.errors import Unavailable
from chassis.redis_wire import pack
from contracts.cache import url_key
from contracts.link import LinkKey
from gateway.adapters.redis_pipe import RedisPipe
from gateway.ports import TellValue

TIMEOUT_S = 0.05  # [R7] a Redis that is slower than this helps no visitor
_BATCH_MAX = 512  # keys of one MGET: a longer one would hold up Redis' other clients
_IN_FLIGHT_MAX = 8  # MGETs at a time
_WAITING_MAX = 8192  # lookups; beyond, Redis is as good as away
logger = logging.getLogger(__name__)

_Batch = list[tuple[LinkKey, TellValue]]


class RedisLinkCache:
    """A LinkCache. `pipe` is its own: after one MGET that is not answered in time all that wait there are given up."""

    def __init__(self, pipe: RedisPipe, *, breaker: Breaker) -> None:
        self._pipe = pipe
        self._breaker = breaker
        self._loop = asyncio.get_running_loop()
        self._waiting: _Batch = []
        self._in_flight = 0
        self._due = False

    def begin(self, key: LinkKey, tell: TellValue) -> None:
        """Asks for a value with all others of this turn.

        Raises:
            Unavailable: not asked, and `tell` will not be called.
        """
        if len(self._waiting) >= _WAITING_MAX or not self._breaker.admit():
            raise _refused("Redis is not asked for the moment.")
        self._waiting.append((key, tell))
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Sends what is waiting, as far as it may; the rest goes when an answer has come."""
        self._due = False
        while self._waiting and self._in_flight < _IN_FLIGHT_MAX:
            batch, self._waiting = self._waiting[:_BATCH_MAX], self._waiting[_BATCH_MAX:]
            self._in_flight += 1
            command = pack([["MGET", *[url_key(key) for key, _ in batch]]])
            try:
                self._pipe.ask(command, partial(self._receive, batch))
            except Unavailable as exc:
                self._receive(batch, exc)

    def _receive(self, batch: _Batch, reply: object) -> None:
        self._in_flight -= 1
        if isinstance(reply, list) and len(reply) == len(batch):
            self._breaker.succeeded()
            for (_, tell), value in zip(batch, reply, strict=True):
                _tell(tell, value if isinstance(value, bytes) else None)  # what is no string is no link
            if self._waiting:
                self._send_soon()
            return
        self._breaker.failed()
        late, self._waiting = self._waiting, []  # they would only wait for the same hung Redis
        for _, tell in (*batch, *late):
            _tell(tell, _refused("Redis does not answer."))


def _tell(tell: Callable[[bytes | Unavailable | None], None], value: bytes | Unavailable | None) -> None:
    try:
        tell(value)
    except Exception:  # one look-up's bug must not leave its neighbours without an answer
        logger.exception("a look-up failed")


def _refused(message: str) -> Unavailable:
    return Unavailable("unavailable", message, retry_after_s=1)
