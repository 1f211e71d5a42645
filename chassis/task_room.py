"""A place for work that must not end with the caller who asked for it.

A caller that hangs up cancels its handler at whatever await it stands. A step that must not be done by half, or whose
result others wait for, runs in the room instead: the caller waits for it, and may go away without it.
"""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from chassis.errors import Unavailable

T = TypeVar("T")


class TaskRoom:
    """An async context manager; leaving waits for the work inside, each piece of which has its own deadline."""

    def __init__(self, *, tasks_max: int = 1024) -> None:
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._tasks_max = tasks_max
        self._open = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            for task in self._running:
                task.cancel()
        await self._tasks.__aexit__(None, None, None)  # told of the error it would wrap it into a group

    async def finish(self, work: Coroutine[Any, Any, T], *, timeout_s: float) -> T:
        """What the work returns or raises; it goes on for at most timeout_s seconds when the caller is cancelled.

        Raises:
            TimeoutError: the work took longer.
            Unavailable: the room is full or closed; the work was not begun.
        """
        return await self.start(work, timeout_s=timeout_s)

    def start(self, work: Coroutine[Any, Any, T], *, timeout_s: float) -> "asyncio.Future[T]":
        """Begins the work now; the future may be awaited by many, each through `wait` so that none cancels it.

        Raises:
            Unavailable: the room is full or closed; the work was not begun.
        """
        if not self._open or len(self._running) >= self._tasks_max:
            work.close()
            raise Unavailable("unavailable", "There is too much to do.", retry_after_s=1)
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        result.add_done_callback(_look)
        task = self._tasks.create_task(self._run(work, result, timeout_s))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return result

    async def _run(self, work: Coroutine[Any, Any, T], result: "asyncio.Future[T]", timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                value = await work
        except Exception as exc:  # noqa: BLE001 (it is handed to whoever waits)
            if not result.done():
                result.set_exception(exc)
        else:
            if not result.done():
                result.set_result(value)
        finally:
            result.cancel()  # without effect on a result that is there; those who wait for a cancelled task go, too


def _look(result: "asyncio.Future[T]") -> None:
    """Looks at the exception, so that one nobody waits for any more is not reported as forgotten."""
    if not result.cancelled():
        result.exception()
