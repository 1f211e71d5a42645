"""How a process ends."""

import asyncio
import os
import signal

import pytest

from chassis.lifecycle import serve


class Worker:
    """Works until stop, then takes `drain_s` to finish; fails at once if told to."""

    def __init__(self, *, drain_s: float = 0.0, failure: Exception | None = None) -> None:
        self.drain_s = drain_s
        self.failure = failure
        self.finished = False
        self.cancelled = False

    async def run(self, stop: asyncio.Event) -> None:
        """Runs."""
        if self.failure is not None:
            raise self.failure
        try:
            await stop.wait()
            await asyncio.sleep(self.drain_s)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.finished = True


class Killer:
    """Sends SIGTERM to its own process once it runs."""

    async def run(self, stop: asyncio.Event) -> None:
        """Runs."""
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()


def test_sigterm_lets_work_in_flight_finish() -> None:
    """A signal sets stop; components end by themselves, none is cancelled."""
    worker = Worker(drain_s=0.05)

    asyncio.run(serve([worker, Killer()], grace_s=5))

    assert worker.finished
    assert not worker.cancelled


def test_work_that_outlasts_the_grace_is_cancelled() -> None:
    """The grace period is a bound, not a hope."""
    worker = Worker(drain_s=60)

    with pytest.raises(TimeoutError):
        asyncio.run(serve([worker, Killer()], grace_s=0.05))

    assert worker.cancelled


def test_a_component_that_fails_ends_the_process() -> None:
    """No half-dead processes: the others are cancelled and the failure is the process's."""
    worker = Worker()

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(serve([worker, Worker(failure=OSError("port taken"))], grace_s=5))

    assert caught.group_contains(OSError, match="port taken")
    assert worker.cancelled


def test_a_component_that_ends_by_itself_ends_the_others_in_order() -> None:
    """No half-dead processes: the others are told to stop, and drain."""

    class Ending:
        async def run(self, stop: asyncio.Event) -> None:
            """Ends at once, without a failure."""

    worker = Worker(drain_s=0.05)

    asyncio.run(serve([worker, Ending()], grace_s=5))

    assert worker.finished
    assert not worker.cancelled
