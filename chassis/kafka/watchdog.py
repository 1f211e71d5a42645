"""A consumer that no longer polls is worse than a dead one: it may hold partitions and do nothing. This ends it.

Two watchers count their own beats since the last poll, not the time: a process that was stopped for an hour finds one
beat missed, not 3600, and goes on. The first is a task, for a consumer that waits for what never comes: it says so in
readiness, then raises, which ends the process in order. The second is a thread, for an event loop that does not turn at
all (or an orderly end that does not end): it writes where everything stands and ends the process at once. Whoever keeps
the process alive starts it again, and what was not committed comes again.
"""

import asyncio
import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator

from chassis.clock import sleep_until_stop

EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h
_LAST_RESORT = 2  # the thread waits for so many times as long


class ConsumerStuckError(RuntimeError):
    """A consumer did not poll for too long. A bug; the process must end."""


class Watchdog:
    """`silence_max_s`: how long a consumer may do without a poll. `end`: what the thread does; None: no thread."""

    def __init__(self, *, silence_max_s: float, beat_s: float = 1.0, end: Callable[[], None] | None = None) -> None:
        self._beats_max = silence_max_s / beat_s
        self._beat_s = beat_s
        self._end = end
        self._missed = 0  # by the task
        self._missed_by_thread = 0

    def polled(self) -> None:
        """The consumer is alive: it polled, or tries to reach its broker."""
        self._missed = self._missed_by_thread = 0

    async def run(self, stop: asyncio.Event, warn: Callable[[str], None]) -> None:
        """Watch until stop. `warn` is told after half of the time. Raises ConsumerStuckError."""
        while not await sleep_until_stop(stop, self._beat_s):
            self._missed += 1
            silence = f"the consumer did not poll for {self._missed * self._beat_s:.0f} s"
            if self._missed > self._beats_max:
                raise ConsumerStuckError(silence)
            if self._missed > self._beats_max / 2:
                warn(silence)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """The thread, beside the block: all of the consumer's life, its end included, for that may hang, too."""
        over = threading.Event()
        if self._end is not None:
            threading.Thread(target=self._guard, args=(self._end, over), name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _guard(self, end: Callable[[], None], over: threading.Event) -> None:
        while not over.wait(self._beat_s):
            self._missed_by_thread += 1
            if self._missed_by_thread > self._beats_max * _LAST_RESORT:
                end()
                return


def end_process() -> None:
    """Write what every thread does, and end at once, without a word to anybody."""
    sys.stderr.write("the consumer did not poll, and its process did not end by itself\n")
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_STUCK)
