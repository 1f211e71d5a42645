"""What travels over Kafka, as the rest of the code sees it: plain values, no client library types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the broker stored it. `timestamp_ms` is the broker's clock (every topic is LogAppendTime)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: Headers = ()

    @property
    def topic_partition(self) -> TopicPartition:
        """Where the record stands."""
        return TopicPartition(self.topic, self.partition)

    def header(self, name: str) -> str | None:
        """The last header of that name as text, or None. Bytes that are not UTF-8 are replaced, never raised on."""
        for key, value in reversed(self.headers):
            if key == name:
                return value.decode("utf-8", "replace")
        return None


class Message(NamedTuple):
    """A record to be sent. `partition` None leaves the choice to the key's hash."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The handler has finished this record; its offset may be committed."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The record's content is at fault [C1]. `retry`: it may pass later (0, 5, 30 s, then DLQ); else DLQ at once."""

    reason: str  # undecodable, conflict, validation, too_large, or the name of an exception
    detail: str = ""
    retry: bool = False


Outcome = Done | Rejected
Position = Mapping[TopicPartition, int]  # the next offset to read (last finished + 1)
