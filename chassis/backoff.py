"""How long to wait before the next try: a pure schedule, so that every loop of the product waits alike."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays from `first_s`, times `factor`, never above `cap_s`; `jitter` 0.2 spreads each by ±20 %."""

    first_s: float = 0.1
    cap_s: float = 5.0
    factor: float = 2.0
    jitter: float = 0.2

    def delay_s(self, attempt: int, random: Callable[[], float] | None = None) -> float:
        """Seconds before try number `attempt` + 1; `attempt` 0 is the first failure.

        `random` returns a number in [0, 1) and is passed in, as all chance is; without it there is no jitter.
        The exponent is bounded, so that a process that has been failing for a week does not overflow.
        """
        plain = min(self.cap_s, self.first_s * self.factor ** min(max(attempt, 0), 64))
        if random is None:
            return plain
        return plain * (1 - self.jitter + 2 * self.jitter * random())
