"""Dead letters: the original record, untouched, in `<topic>-dlq`, with where, why and how often beside it."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.kafka.producer import Sender
from chassis.kafka.record import Message, Record, Rejected

DETAIL_BYTES_MAX = 1024
HOUR_MS = 3_600_000
RESUME = "dlq_resume"  # the header by which a person lets a group go on [C5]
CUT = "dlq_cut"  # the letter lacks its record's value and headers
STORY = (  # the headers that a letter adds to its record's own
    "dlq_group", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_timestamp_ms", "dlq_reason", "dlq_detail",
    "dlq_attempts", "dlq_first_failed_at",
)  # fmt: skip
_SEND_TIMEOUT_S = 8.0


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
        """Count the last hour's dead letters of this group. Raises Unavailable; may be called again."""
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
    return replace(message, headers=(*message.headers, (CUT, b"true")))


def resume_message(topic: str, group: str) -> Message:
    """What a person writes to the dead letters of `topic` so that `group` goes on after its breaker tripped [C5]."""
    return Message(dead_letter_topic(topic), group.encode(), b"", ((RESUME, group.encode()),))


class TopicDeadLetters:
    """Dead letters on Kafka. Letters of the last hour are counted from the topic at the start, so that a restart does
    not clear the breaker; from then on this process counts its own.

    `history` reads the last hour's records of all the dead letter topics of this group; it raises Unavailable.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        history: Callable[[], Awaitable[Sequence[Record]]],
        clock: Clock,
        group: str,
        per_hour_max: int = 50,
    ) -> None:
        self._sender = sender
        self._history = history
        self._clock = clock
        self._group = group
        self._per_hour_max = per_hour_max
        self._buried_at_ms: deque[int] = deque(maxlen=per_hour_max + 1)
        self._resumed_at_ms = -1  # broker time of the newest resumption that was seen
        self._opened = False
        self._tripped = False

    async def open(self) -> None:
        """Count what the topic tells of the last hour; the second time it does nothing. Raises Unavailable."""
        if self._opened:
            return
        letters, self._resumed_at_ms = self._since_resumption(await self._history())
        self._buried_at_ms.extend(letters)
        self._tripped = len(letters) > self._per_hour_max
        self._opened = True

    async def send(self, letter: DeadLetter) -> None:
        """Send and wait for the acknowledgement. Raises Unavailable."""
        try:
            acknowledged = await self._send(dead_letter_message(letter, self._group))
        except ValueError:  # too large: never to be sent, and its partition must not stop for ever before it
            acknowledged = await self._send(cut_dead_letter_message(letter, self._group))
        if acknowledged != 1:
            raise Unavailable("unavailable", "the dead letter was not acknowledged")
        now_ms = int(self._clock.now().timestamp() * 1000)
        self._buried_at_ms.append(now_ms)
        lately = [moment for moment in self._buried_at_ms if moment > now_ms - HOUR_MS]
        self._tripped = self._tripped or len(lately) > self._per_hour_max

    def tripped(self) -> bool:
        """Whether more than the limit was buried within an hour, and nobody has resumed the group."""
        return self._tripped

    async def resumed(self) -> bool:
        """Look for a resumption newer than the last one seen. Raises Unavailable."""
        letters, resumed_at_ms = self._since_resumption(await self._history())
        if resumed_at_ms <= self._resumed_at_ms:
            return False
        self._resumed_at_ms = resumed_at_ms
        self._buried_at_ms.clear()
        self._buried_at_ms.extend(letters)
        self._tripped = len(letters) > self._per_hour_max
        return not self._tripped

    async def _send(self, message: Message) -> int:
        return await self._sender.send_in_order([message], timeout_s=_SEND_TIMEOUT_S)

    def _since_resumption(self, records: Sequence[Record]) -> tuple[list[int], int]:
        """Broker times of the group's letters behind its newest resumption, in order, and that one's time, or -1."""
        own = [record for record in records if record.header(RESUME) == self._group]
        resumed_at_ms = max((record.timestamp_ms for record in own), default=-1)
        letters = [record for record in records if record.header("dlq_group") == self._group]
        return sorted(r.timestamp_ms for r in letters if r.timestamp_ms > resumed_at_ms), resumed_at_ms


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
