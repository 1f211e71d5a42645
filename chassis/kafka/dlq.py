"""Dead letters: the original record, untouched, in `<topic>-dlq`, with where, why and how often beside it."""

from dataclasses import dataclass
from typing import Protocol

from chassis.kafka.record import Record, Rejected


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record given up on. `first_failed_at_ms` is wall clock milliseconds; `attempts` counts handler calls."""

    record: Record
    verdict: Rejected
    attempts: int
    first_failed_at_ms: int


class DeadLetters(Protocol):
    """Where a runner leaves what it gives up on, and the breaker that stops it from giving up on everything [C5]."""

    async def open(self) -> None:
        """Count the last hour's dead letters of this group. Raises Unavailable; may then be called again."""
        ...

    async def send(self, letter: DeadLetter) -> None:
        """Returns when the broker has acknowledged the letter. Raises Unavailable otherwise (it may be there)."""
        ...

    def tripped(self) -> bool:
        """True once more than the hourly limit was buried; stays so until a person resumes the group."""
        ...

    async def resumed(self) -> bool:
        """Ask whether a person has resumed the group since it tripped; closes the breaker if so. Raises Unavailable."""
        ...
