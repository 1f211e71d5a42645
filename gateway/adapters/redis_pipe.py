"""Questions to Redis on one connection, answered by call-back: what a look-up costs should be its own work.

A question is one write, and its answer comes straight from the transport, without streams, tasks and futures in between
(a question through redis-py costs 80 µs).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from redis import exceptions

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.redis import Redis
from chassis.redis_wire import pack
from gateway.adapters.redis_connection import RedisConnection, connect

_TICKS = 5  # a deadline is so many ticks that came in time; a late one was a standstill of ours and does not count [R7]
_EXCUSES_MAX = 4  # in a row
_QUESTIONS_MAX = 1024  # unanswered ones
logger = logging.getLogger(__name__)

Tell = Callable[[object], None]  # a reply as it came, Unavailable, or ResponseError; must not raise


class _Question:
    __slots__ = ("data", "left", "tell")

    def __init__(self, data: bytes, tell: Tell) -> None:
        self.data = data
        self.tell = tell
        self.left = _TICKS


class RedisPipe:
    """An async context manager. It connects when it is asked, and again after a failure; after one that is missed, all
    that wait are told so. `tasks` runs the connecting; `on_run` hears which run of Redis it is connected to [R8]."""

    def __init__(
        self,
        client: Redis,
        *,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        timeout_s: float,
        on_run: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._tick_s = timeout_s / _TICKS
        self._timeout_s = timeout_s
        self._on_run = on_run
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Question] = deque()  # in the order of their answers; nothing is sent while connecting
        self._line: RedisConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._excused = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up(_away())

    def ask(self, data: bytes, tell: Tell) -> None:
        """Sends one packed command. `tell` is called later, once, within the deadline.

        Raises:
            Unavailable: too many are waiting; it was not sent and `tell` will not be called.
        """
        if len(self._waiting) >= _QUESTIONS_MAX:
            raise Unavailable("unavailable", "Redis has too much to do.", retry_after_s=1)
        self._waiting.append(_Question(data, tell))
        if self._line is not None:
            self._line.send(data)
        elif self._connecting is None:
            self._connecting = self._tasks.create_task(self._connect(), name="redis pipe")
        if self._timer is None:
            self._begin_tick()

    async def reply(self, *command: bytes | str | int) -> object:
        """The reply to one command, never re-sent.

        Raises:
            Unavailable: none in time.
            redis.exceptions.ResponseError: refused for what the command says.
        """
        answer: asyncio.Future[object] = self._loop.create_future()

        def settle(told: object) -> None:
            if not answer.done():
                answer.set_result(told)

        self.ask(pack([command]), settle)
        told = await answer
        if isinstance(told, Unavailable | exceptions.RedisError):
            raise told
        return told

    def stay_with(self, run: str) -> None:
        """Changes are told by this run of Redis now. A connection to another one is given up: a Redis that was replaced
        may go on answering [R8]."""
        if self._line is not None and self._line.run != run:
            self._give_up(_away())

    async def _connect(self) -> None:
        failure: Unavailable
        try:
            line = await connect(self._client, timeout_s=2 * self._timeout_s)
        except Unavailable as exc:
            failure = exc
        except Exception:  # the tasks are everybody's: what got out of here would end the gateway
            logger.exception("connecting to Redis failed")
            failure = _away()
        else:
            self._connecting = None
            self._open(line)
            return
        self._connecting = None
        self._give_up(failure)

    def _open(self, line: RedisConnection) -> None:
        self._line = line
        line.received, line.ended = self._answer, self._end
        if self._on_run is not None:
            self._on_run(line.run)
        line.send(b"".join([question.data for question in self._waiting]))

    def _answer(self, replies: list[object]) -> None:
        self._excused = 0
        for reply in replies:
            if not self._waiting:
                self._give_up(_away())  # whose answer was the one before?
                return
            self._waiting.popleft().tell(reply)

    def _end(self) -> None:
        self._give_up(_away())

    def _give_up(self, failure: Unavailable) -> None:
        """Ends the connection, and tells everybody who waits."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._excused = 0
        waiting, self._waiting = self._waiting, deque()
        for question in waiting:
            question.tell(failure.again())

    def _begin_tick(self) -> None:
        self._due = self._clock.monotonic() + self._tick_s
        self._timer = self._loop.call_later(self._tick_s, self._end_tick)

    def _end_tick(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._clock.monotonic() - self._due > self._tick_s / 2 and self._excused < _EXCUSES_MAX:
            self._excused += 1
        else:
            for question in self._waiting:
                question.left -= 1
        if self._waiting[0].left < 1:
            self._give_up(_away())
        else:
            self._begin_tick()


def _away() -> Unavailable:
    return Unavailable("unavailable", "Redis does not answer.", retry_after_s=1)
