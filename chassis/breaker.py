"""A breaker: after one failure nobody waits for the same dependency again for a while [R7]. One for each client."""

from chassis.clock import Clock


class Breaker:
    """Closed: all are admitted. After a failure: nobody for `open_s`, then one trial each `open_s`, until one works.

    A trial that never reports (its caller was cancelled) is followed by another one `open_s` later.
    """

    def __init__(self, clock: Clock, *, open_s: float = 1.0) -> None:
        self._clock = clock
        self._open_s = open_s
        self._next_trial: float | None = None  # None: closed

    @property
    def closed(self) -> bool:
        """Whether the last thing heard was good."""
        return self._next_trial is None

    def admit(self) -> bool:
        """Whether this caller may try now. Who is admitted reports by `succeeded` or `failed`."""
        if self._next_trial is None:
            return True
        now = self._clock.monotonic()
        if now < self._next_trial:
            return False
        self._next_trial = now + self._open_s
        return True

    def succeeded(self) -> None:
        """It answered."""
        self._next_trial = None

    def failed(self) -> None:
        """It did not answer in time, or cannot be reached."""
        self._next_trial = self._clock.monotonic() + self._open_s
