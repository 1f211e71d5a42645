"""Reading a dead letter topic: its letters, what became of each, which of them are meant, which may be deleted. Pure.

Besides letters the topic holds a person's notes, each in the partition of the letters it speaks of, so that deleting
a partition up to an offset never deletes a note before its letters:

- `dlq_resume: GROUP`: the group goes on after its breaker tripped [C5].
- `dlq_replay: claimed`: a call is about to replay the letters at these offsets; written before any of them is sent.
- `dlq_replay: sent`: the broker has the replays of these letters. None of them is ever replayed again.
- `dlq_replay: lapsed`: these claims were looked into; the letters they left without a `sent` were not replayed.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from chassis.kafka.codec import REPLAY_FOR, REPLAY_LETTER, REPLAY_OF
from chassis.kafka.dead_letter_breaker import LOOK_BACK_MS, RESUME
from chassis.kafka.dlq import CUT, STORY
from chassis.kafka.record import Headers, Message, Position, Record, TopicPartition

NOTE = "dlq_replay"
CALL = "dlq_call"
_OF_A_REPLAY = (REPLAY_FOR, REPLAY_OF, REPLAY_LETTER)


class Fate(Enum):
    """What became of a letter."""

    WAITING = "waiting"
    CLAIMED = "claimed"  # a call began to replay it, and did not say how that ended
    REPLAYED = "replayed"
    CUT = "cut"  # too large to be buried whole: the record itself is only where the story says, and is not replayed
    COPY = "copy"  # the same record was buried twice by the same group; the first letter counts


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: `record` as it stands in the dead letter topic, and its story."""

    record: Record
    group: str
    topic: str  # where the record stood, with the next three
    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    detail: str
    attempts: int
    first_failed_at: str
    fate: Fate = Fate.WAITING

    @property
    def id(self) -> str:
        """Its name for a person: topic/partition/offset in the dead letter topic."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"

    @property
    def headers(self) -> Headers:
        """The headers of the record before it was buried (a producer may have moved `traceparent`)."""
        return _without_last(self.record.headers, STORY)


@dataclass(frozen=True, slots=True)
class Claim:
    """A call's announcement that it replays the letters at these offsets of the claim's partition."""

    record: Record
    call: str
    offsets: frozenset[int]


@dataclass(frozen=True, slots=True)
class Contents:
    """A dead letter topic, or several, read up to `ends`. `open_claims` are without a `lapsed`."""

    letters: Sequence[Letter]
    open_claims: Sequence[Claim]
    resumptions: Sequence[Record]
    strangers: Sequence[Record]  # neither letter nor note; left alone
    sent: Collection[tuple[TopicPartition, int]]  # where the letters stand that are noted as sent
    ends: Position


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant; what is None or empty does not narrow. Times are the broker's, of the burial."""

    ids: frozenset[str] = frozenset()
    group: str | None = None
    reason: str | None = None
    code: str | None = None  # the link key
    since_ms: int | None = None
    until_ms: int | None = None  # exclusive
    fates: frozenset[Fate] = frozenset(Fate)

    def picks(self, letter: Letter) -> bool:
        """Whether this letter is meant."""
        at_ms = letter.record.timestamp_ms
        return (
            (not self.ids or letter.id in self.ids)
            and self.group in (None, letter.group)
            and self.reason in (None, letter.reason)
            and (self.code is None or self.code.encode() == letter.record.key)
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
            and letter.fate in self.fates
        )


@dataclass(frozen=True, slots=True)
class Purge:
    """What a purge deletes: everything before `position`, and with it `letters`; `kept` were meant, too, but stand
    behind something that stays.
    """

    position: Position
    letters: Sequence[Letter]
    kept: Sequence[Letter]


def sort_out(records: Iterable[Record], ends: Position) -> Contents:
    """What these records say together. `records`: any order across partitions; letters are returned oldest first."""
    letters: list[Letter] = []
    claims: list[Claim] = []
    resumptions: list[Record] = []
    strangers: list[Record] = []
    sent: set[tuple[TopicPartition, int]] = set()
    lapsed: set[tuple[TopicPartition, int]] = set()
    for record in sorted(records, key=lambda r: (r.timestamp_ms, r.topic, r.partition, r.offset)):
        if (letter := _letter(record)) is not None:
            letters.append(letter)
        elif record.header(RESUME) is not None:
            resumptions.append(record)
        elif (offsets := _noted(record)) is not None:
            places = {(record.topic_partition, offset) for offset in offsets}
            match record.header(NOTE):
                case "claimed":
                    claims.append(Claim(record, record.header(CALL) or "", offsets))
                case "sent":
                    sent |= places
                case "lapsed":
                    lapsed |= places
        else:
            strangers.append(record)
    still = [claim for claim in claims if (claim.record.topic_partition, claim.record.offset) not in lapsed]
    claimed = {(claim.record.topic_partition, offset) for claim in still for offset in claim.offsets}
    return Contents(_with_fates(letters, sent, claimed), still, resumptions, strangers, sent, ends)


def replay_message(letter: Letter) -> Message:
    """The record as it was, to the partition it stood in, for the one group that failed on it."""
    kept = tuple(item for item in letter.headers if item[0] not in _OF_A_REPLAY)
    first = dict(letter.headers).get(REPLAY_OF) or _path(letter.partition, letter.offset, letter.timestamp_ms)
    added = (
        (REPLAY_FOR, letter.group.encode()),
        (REPLAY_OF, first),
        (REPLAY_LETTER, _path(letter.record.partition, letter.record.offset)),
    )
    return Message(letter.topic, letter.record.key, letter.record.value, (*kept, *added), letter.partition)


def note_message(partition: TopicPartition, note: str, offsets: Iterable[int], call: str) -> Message:
    """A note about letters (of `lapsed`: about claims) of this partition; `note` is claimed, sent or lapsed."""
    headers = ((NOTE, note.encode()), (CALL, call.encode()))
    value = json.dumps(sorted(offsets)).encode()
    return Message(partition.topic, b"", value, headers, partition.partition)


def replayed_among(letters: Iterable[Letter], records: Iterable[Record]) -> Collection[int]:
    """Offsets of those letters (of one partition) whose replays are among these records of the topic they were of."""
    seen = {(record.topic, record.header(REPLAY_FOR), record.header(REPLAY_LETTER)) for record in records}
    return {
        letter.record.offset
        for letter in letters
        if (letter.topic, letter.group, _path(letter.record.partition, letter.record.offset).decode()) in seen
    }


def first_claims(claims: Iterable[Claim]) -> Mapping[int, str]:
    """Which call may replay the letter at each offset: of several claims of one partition the first one counts."""
    holders: dict[int, str] = {}
    for claim in sorted(claims, key=lambda claim: claim.record.offset):
        for offset in claim.offsets:
            holders.setdefault(offset, claim.call)
    return holders


def plan_purge(contents: Contents, selection: Selection, *, now_ms: int) -> Purge:
    """How far each partition can be deleted: to the first letter that is not meant, the first stranger, or the first
    resumption within the last 24 hours, without which a restart would count the letters before it again [C5].
    """
    meant = [letter for letter in contents.letters if selection.picks(letter)]
    stay = [letter.record for letter in contents.letters if not selection.picks(letter)]
    stay += contents.strangers
    stay += [record for record in contents.resumptions if record.timestamp_ms > now_ms - LOOK_BACK_MS]
    position = dict(contents.ends)
    for record in stay:
        place = record.topic_partition
        position[place] = min(position.get(place, record.offset), record.offset)
    gone: list[Letter] = []
    kept: list[Letter] = []
    for letter in meant:
        (gone if letter.record.offset < position[letter.record.topic_partition] else kept).append(letter)
    touched = {letter.record.topic_partition for letter in gone}
    return Purge({tp: offset for tp, offset in position.items() if tp in touched}, gone, kept)


def _with_fates(
    letters: Sequence[Letter],
    sent: Collection[tuple[TopicPartition, int]],
    claimed: Collection[tuple[TopicPartition, int]],
) -> list[Letter]:
    seen: set[tuple[str, str, int, int, int]] = set()
    told: list[Letter] = []
    for letter in letters:
        place = (letter.record.topic_partition, letter.record.offset)
        origin = (letter.group, letter.topic, letter.partition, letter.offset, letter.timestamp_ms)
        fate = Fate.WAITING
        if letter.record.header(CUT) is not None:
            fate = Fate.CUT
        elif origin in seen:
            fate = Fate.COPY
        elif place in sent:
            fate = Fate.REPLAYED
        elif place in claimed:
            fate = Fate.CLAIMED
        seen.add(origin)
        told.append(replace(letter, fate=fate))
    return told


def _letter(record: Record) -> Letter | None:
    story = {name: record.header(name) for name in STORY}
    group, topic = story["dlq_group"], story["dlq_topic"]
    if not group or not topic:
        return None
    try:
        return Letter(
            record=record,
            group=group,
            topic=topic,
            partition=int(story["dlq_partition"] or ""),
            offset=int(story["dlq_offset"] or ""),
            timestamp_ms=int(story["dlq_timestamp_ms"] or ""),
            reason=story["dlq_reason"] or "",
            detail=story["dlq_detail"] or "",
            attempts=int(story["dlq_attempts"] or ""),
            first_failed_at=story["dlq_first_failed_at"] or "",
        )
    except ValueError:
        return None


def _noted(record: Record) -> frozenset[int] | None:
    """The offsets a note speaks of; None: it is no note."""
    if record.header(NOTE) not in ("claimed", "sent", "lapsed"):
        return None
    try:
        offsets = json.loads(record.value)
    except ValueError:
        return None
    return frozenset(offsets) if isinstance(offsets, list) and all(type(o) is int for o in offsets) else None


def _without_last(headers: Headers, names: Sequence[str]) -> Headers:
    """The headers without the last one of each of these names."""
    wanted, kept = set(names), []
    for item in reversed(headers):
        if item[0] in wanted:
            wanted.discard(item[0])
        else:
            kept.append(item)
    return tuple(reversed(kept))


def _path(*numbers: int) -> bytes:
    return "/".join(str(number) for number in numbers).encode()
