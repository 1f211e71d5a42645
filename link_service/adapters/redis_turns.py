"""Commands of one turn of the event loop in one pipeline, for reads that many callers make at once.

A burst of misses would otherwise open a connection each, and most would miss their 50 ms while handshakes are made.
"""

import asyncio

from redis.exceptions import ResponseError

from chassis.errors import Unavailable
from chassis.redis_wire import Command
from chassis.task_room import TaskRoom
from link_service.adapters.redis_line import UNAVAILABLE, RedisLine

_BATCH_MAX = 128  # commands of one pipeline: a longer one would hold up Redis' other clients
_IN_FLIGHT_MAX = 4  # pipelines at a time; meanwhile the next ones fill up
_WAITING_MAX = 8192  # commands; beyond, Redis is as good as away
_TASK_TIMEOUT_S = 5.0  # far above the line's own deadline, which ends a pipeline


class RedisTurns:
    """The `ask` of a line. `room` runs the pipelines: whoever gives up waiting takes nobody along."""

    def __init__(self, line: RedisLine, room: TaskRoom) -> None:
        self._line = line
        self._room = room
        self._waiting: list[tuple[Command, asyncio.Future[object]]] = []
        self._in_flight = 0
        self._leaving = False

    async def ask(self, *command: bytes | str | int) -> object:
        """The reply as it came, never re-sent.

        Raises:
            Unavailable: never sent or refused (reason `unavailable`); sent and not answered (as the line says it).
            redis.exceptions.ResponseError: refused for what the command says.
        """
        if len(self._waiting) >= _WAITING_MAX:
            raise Unavailable(UNAVAILABLE, "Redis has too much to do.", retry_after_s=1)
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, reply))
        self._leave_soon()
        told = await reply
        if isinstance(told, Unavailable | ResponseError):
            raise told
        return told

    def _leave_soon(self) -> None:
        if self._waiting and not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_soon(self._leave)

    def _leave(self) -> None:
        self._leaving = False
        while self._waiting and self._in_flight < _IN_FLIGHT_MAX:
            batch, self._waiting = self._waiting[:_BATCH_MAX], self._waiting[_BATCH_MAX:]
            wanted = [(command, reply) for command, reply in batch if not reply.done()]  # some have given up
            if not wanted:
                continue
            self._in_flight += 1
            try:
                self._room.start(self._send(wanted), timeout_s=_TASK_TIMEOUT_S)
            except Unavailable:
                self._settle(wanted, [])

    async def _send(self, batch: list[tuple[Command, asyncio.Future[object]]]) -> None:
        replies: list[object] = []
        try:
            replies = await self._line.ask_all([command for command, _ in batch])
        finally:
            self._settle(batch, replies)

    def _settle(self, batch: list[tuple[Command, asyncio.Future[object]]], replies: list[object]) -> None:
        """Tells everybody; who has no reply learns that there will be none."""
        self._in_flight -= 1
        for place, (_, reply) in enumerate(batch):
            if not reply.done():
                reply.set_result(replies[place] if place < len(replies) else _given_up())
        self._leave_soon()


def _given_up() -> Unavailable:
    return Unavailable(UNAVAILABLE, "The answer was given up.", retry_after_s=1)
