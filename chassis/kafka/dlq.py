"""Dead letters: the original record, untouched, in `<topic>-dlq`, with where, why and how often beside it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.kafka.dead_letter_breaker import PER_HOUR_MAX, RESUME, Breaker
from chassis.kafka.metrics import CONSUMER_STOPPED, DEAD_LETTERS_LAST_HOUR
from chassis.kafka.producer import Sender
from chassis.kafka.record import Message, Record, Rejected

DETAIL_BYTES_MAX = 1024
CUT = "dlq_cut"  # the letter lacks its record's value and headers
STORY = (  # the headers that a letter adds to its record's own
    "dlq_group", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_timestamp_ms", "dlq_reason", "dlq_detail",
    "dlq_attempts", "dlq_first_failed_at",
)  # fmt: skip
SEND_TIMEOUT_S = 5.0
_LOOK_TIMEOUT_S = 2.0  # of one look within a burial; those in between may take longer
BURIAL_MAX_S = 2 * _LOOK_TIMEOUT_S + SEND_TIMEOUT_S  # who waits must wait longer, or an acknowledged letter is repeated
_LOOKED_MAX_S = 10.0  # before a burial: how old a look at what the other processes have buried may be


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
        """Count this group's dead letters. Raises Unavailable; may be called again."""
        ...

    async def send(self, letter: DeadLetter) -> None:
        """Returns when the broker has acknowledged the letter. Raises Unavailable otherwise (it may be there)."""
        ...

    def tripped(self) -> bool:
        """True once more than the hourly limit was buried; stays so until a person resumes the group."""
        ...

    async def resumed(self) -> bool:
        """Count what all processes of the group have left since the last look; whether a person has resumed the group
        since then, which closes the breaker. Raises Unavailable.
        """
        ...


def dead_letter_topic(topic: str) -> str:
    """Where the dead letters of a topic go."""
    return f"{topic}-dlq"


def dead_letter_message(letter: DeadLetter, group: str) -> Message:
    """The record as it was, its own headers first and untouched, then `dlq_*`: text, times in RFC 3339."""
    record, verdict = letter.record, letter.verdict
    first_failed = datetime.fromtimestamp(letter.first_failed_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    added = (
        group,
        record.topic,
        str(record.partition),
        str(record.offset),
        str(record.timestamp_ms),
        verdict.reason,
        verdict.detail,
        str(letter.attempts),
        first_failed,
    )
    headers = tuple((name, value.encode()[:DETAIL_BYTES_MAX]) for name, value in zip(STORY, added, strict=True))
    return Message(dead_letter_topic(record.topic), record.key, record.value, (*record.headers, *headers))


def cut_dead_letter_message(letter: DeadLetter, group: str) -> Message:
    """The same without value and headers, for a record that leaves no room for its story; `dlq_cut` says so.

    The record itself stays at `dlq_topic`, `dlq_partition`, `dlq_offset` as long as its topic keeps it.
    """
    cut = replace(letter.record, key=letter.record.key[:DETAIL_BYTES_MAX], value=b"", headers=())
    message = dead_letter_message(replace(letter, record=cut), group)
    return message._replace(headers=(*message.headers, (CUT, b"true")))


def resume_message(topic: str, group: str) -> Message:
    """What a person writes to the dead letters of `topic` so that `group` goes on after its breaker tripped [C5]."""
    return Message(dead_letter_topic(topic), group.encode(), b"", ((RESUME, group.encode()),))


class TopicDeadLetters:
    """Dead letters on Kafka, and the breaker that counts those of all processes of the group, from the topic.

    `history` gives the records of all the dead letter topics of this group: those of the last 24 hours at first, then
    those that are new; some may come twice. It raises Unavailable.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        history: Callable[[], Awaitable[Sequence[Record]]],
        clock: Clock,
        group: str,
        per_hour_max: int = PER_HOUR_MAX,
    ) -> None:
        self._sender = sender
        self._history = history
        self._clock = clock
        self._group = group
        self._breaker = Breaker(group, per_hour_max=per_hour_max)
        self._looked_at: float | None = None  # None: never
        DEAD_LETTERS_LAST_HOUR.labels(group).set_function(self._lately)
        CONSUMER_STOPPED.labels(group).set_function(lambda: float(self._breaker.tripped))

    async def open(self) -> None:
        """Count what the topic tells; the second time it does nothing. Raises Unavailable."""
        if self._looked_at is None:
            await self.resumed()

    async def send(self, letter: DeadLetter) -> None:
        """Send and wait for the acknowledgement, at most BURIAL_MAX_S. Raises Unavailable."""
        if self._looked_at is None or self._clock.monotonic() - self._looked_at > _LOOKED_MAX_S:
            await self._look()  # other processes have buried, too
            if self._breaker.tripped:
                raise Unavailable("unavailable", "the group has stopped itself")
        if await self._send(letter) != 1:
            raise Unavailable("unavailable", "the dead letter was not acknowledged")
        try:
            await self._look()  # counts it, at its time by the broker's clock
        except Unavailable:
            self._looked_at = None  # no letter more before it was counted

    def tripped(self) -> bool:
        """Whether more than the limit was buried within an hour, and nobody has resumed the group."""
        return self._breaker.tripped

    async def resumed(self) -> bool:
        """Look into the topic; whether a person has let the group go on since the last look. Raises Unavailable."""
        records = await self._history()
        self._looked_at = self._clock.monotonic()
        return self._breaker.note(records) and not self._breaker.tripped

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                await self.resumed()
        except TimeoutError as error:
            raise Unavailable("unavailable", "the broker does not tell the dead letters in time") from error

    async def _send(self, letter: DeadLetter) -> int:
        try:
            message = dead_letter_message(letter, self._group)
            return await self._sender.send_in_order([message], timeout_s=SEND_TIMEOUT_S)
        except ValueError:  # too large: never to be sent, and its partition must not stop for ever before it
            message = cut_dead_letter_message(letter, self._group)
            return await self._sender.send_in_order([message], timeout_s=SEND_TIMEOUT_S)

    def _lately(self) -> float:
        return self._breaker.lately(now_ms=int(self._clock.now().timestamp() * 1000))


class NoDeadLetters:
    """For topics whose records are only hints: a record that was given up on is counted by the runner, and dropped."""

    async def open(self) -> None:
        """Nothing to count."""

    async def send(self, letter: DeadLetter) -> None:
        """Drop it."""

    def tripped(self) -> bool:
        """Never."""
        return False

    async def resumed(self) -> bool:
        """Never tripped."""
        return True
