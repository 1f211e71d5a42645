"""A time-out for what another process does, which tells its slowness from our own.

A plain time-out also runs out while this process' own loop stands still (a long computation, a machine that gives it
no CPU): the reply lies unread in the socket, and the other side gets the blame. With uvloop it is worse: a timer that
is set late in such a turn counts from the turn's beginning and fires before the socket is looked at.
"""

import asyncio
from types import TracebackType
from typing import Self

from chassis.clock import Clock

_TICKS = 5  # that must pass in order; each is a fifth of the time
_EXCUSES_MAX = 4  # ticks that came late and do not count; so a loop that is always late still ends
_EARLY_S = 0.002  # the grain of loops' timers


class Patience:
    """An async context manager: TimeoutError when timeout_s have passed *in which the loop turned*.

    The time is cut into ticks. One that comes late by more than half of itself was a standstill of ours: it is not
    counted, and the loop gets to read what has arrived meanwhile. At most 1.8 times timeout_s, and the standstills.
    """

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        self._tick_s = timeout_s / _TICKS
        self._clock = clock
        self._left = _TICKS
        self._due = 0.0
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self.excused = 0  # standstills so far

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._begin_tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)  # raises TimeoutError if it was this time-out

    def _begin_tick(self) -> None:
        self._due = self._clock.monotonic() + self._tick_s
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._end_tick)

    def _end_tick(self) -> None:
        late_s = self._clock.monotonic() - self._due
        if self.excused < _EXCUSES_MAX and not -_EARLY_S <= late_s <= self._tick_s / 2:
            self.excused += 1
        else:
            self._left -= 1
        if self._left:
            self._begin_tick()
        else:
            self._timer = None
            self._scope.reschedule(asyncio.get_running_loop().time())
