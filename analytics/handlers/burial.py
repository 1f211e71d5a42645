"""Undecodable records go to the dead letters; too many of them stop the counting until a person looks [C1, C5]."""

from collections.abc import Sequence

from analytics.handlers.decoding import Skip
from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.kafka.dlq import DeadLetter, DeadLetters
from chassis.kafka.metrics import count_dead_letter, declare_dead_letters
from chassis.kafka.record import Record, Rejected

_LOOK_S = 5.0  # between looks whether a person has resumed the group


class Burial:
    """Buries each record once per life of the process; a replay after a crash may bury it again, under its offset."""

    def __init__(self, dead_letters: DeadLetters, *, group: str, clock: Clock) -> None:
        self._dead_letters = dead_letters
        self._group = group
        self._clock = clock
        self._buried: set[tuple[int, int]] = set()  # of the records that are being tried
        self._next_look = 0.0
        declare_dead_letters(group)

    async def open(self) -> None:
        """Learn what was buried lately. Raises Unavailable."""
        await self._dead_letters.open()

    async def check(self) -> None:
        """Raises Unavailable while the breaker is open."""
        if not self._dead_letters.tripped():
            return
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            if await self._dead_letters.resumed():
                return
        raise Unavailable("unavailable", "Too many dead letters: the group waits to be resumed.")

    async def bury(self, records: Sequence[tuple[Record, Skip]]) -> None:
        """Returns when the broker has these letters. Raises Unavailable; then the same records may be given again."""
        for record, why in records:
            place = (record.partition, record.offset)
            if place not in self._buried:
                now_ms = int(self._clock.now().timestamp() * 1000)
                await self._dead_letters.send(DeadLetter(record, Rejected(why.value), 1, now_ms))
                self._buried.add(place)
                count_dead_letter(self._group, why.value)
        self._buried.clear()
