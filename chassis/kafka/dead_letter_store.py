"""Dead letters for a person: read them, send them once more to the group that failed, let it go on, throw them away.

A letter is replayed at most once, over all calls, also when one is killed at any step (a record that fails again is
buried again, as a new letter). In batches of one partition:

1. *claim*: a note in the dead letter topic names the letters. Of two calls that claim the same letter the one whose
   note stands first has it; both see that by reading the partition behind what they knew.
2. *send* the records, in order, beginning at most 3 s and ending at most 13 s after the claim was begun.
3. *note* those the broker acknowledged as sent.

A call that dies between 1 and 3 leaves claims of which nobody knows. The next call waits until they are 15 s old by
the broker's clock, when nothing of them can be on its way any more, and looks for each letter's replay in the topic it
was for, in the time in which it can have been sent: there, it is noted as sent, otherwise the claim is noted as
lapsed, and the letter is as good as new. What this cannot cover: a caller frozen for more than 10 s between its last
look at the clock and the write to its socket.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.clock import Clock, uuid7
from chassis.errors import Unavailable
from chassis.kafka.admin import Admin
from chassis.kafka.dlq import dead_letter_topic, resume_message
from chassis.kafka.letters import (
    Claim,
    Contents,
    Fate,
    Letter,
    Purge,
    Selection,
    first_claims,
    note_message,
    replay_message,
    replayed_among,
    sort_out,
)
from chassis.kafka.producer import Producer, Sender
from chassis.kafka.record import Message, TopicPartition

BATCH_LETTERS_MAX = 100
LETTERS_MAX = 500_000  # what fits in memory; at 50 an hour and group 30 days make a fifth of it
_READ_TIMEOUT_S = 30.0
_SEND_TIMEOUT_S = 10.0
_NOTE_TIMEOUT_S = 5.0
_CLAIM_TO_SEND_S = 3.0
_SETTLED_MS = 15_000  # after the claim: 3 s to begin, 10 s to send, 2 s for clocks of brokers that differ
_SLACK_MS = 5_000
_MESSAGE_BYTES_MAX = 1_048_000  # a letter is larger than its record was allowed to be
_WINDOW_RECORDS_MAX = 200_000  # eight times what a full partition takes in during the 25 s that are searched
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay ended. `elsewhere`: another call claimed them in the meantime."""

    sent: int
    found_sent: int  # an interrupted call had sent them, and had not said so
    elsewhere: int


class DeadLetterStore:
    """The dead letters of these topics (their names, not those of their dead letter topics)."""

    def __init__(self, *, admin: Admin, sender: Sender, topics: Sequence[str], clock: Clock) -> None:
        self._admin = admin
        self._sender = sender
        self._topics = [dead_letter_topic(topic) for topic in topics]
        self._clock = clock

    async def read(self) -> Contents:
        """All there is, as of now. Raises Unavailable; also when there are more letters than fit in memory."""
        partitions = [tp for topic in self._topics for tp in await self._admin.partitions(topic)]
        ends = await self._admin.end_offsets(partitions) if partitions else {}
        records = await self._admin.records_since(self._topics, _EPOCH, limit=LETTERS_MAX)
        if len(records) >= LETTERS_MAX:
            raise Unavailable("unavailable", f"there are more than {LETTERS_MAX} dead letters")
        return sort_out((r for r in records if r.offset < ends.get(r.topic_partition, 0)), ends)

    async def replay(self, selection: Selection, advance: Callable[[int], None]) -> Replayed:
        """Send the selected letters that were never replayed to their groups, oldest first in each partition.

        `advance` is told of each batch how many letters it dealt with. Raises Unavailable when the broker does not
        answer; what was sent until then is noted, or found by the next call.
        """
        contents = await self.read()
        found_sent = 0
        if claims := _claims_on(contents, selection):
            found = await self._settle(contents.letters, claims)
            found_sent = sum(selection.picks(letter) for letter in found)
            advance(found_sent)
            contents = await self.read()
        waiting = [letter for letter in contents.letters if letter.fate is Fate.WAITING and selection.picks(letter)]
        call = uuid7(self._clock.now())
        sent = 0
        for batch in _batches(waiting):
            sent += await self._replay(batch, contents, call)
            advance(len(batch))
        return Replayed(sent=sent, found_sent=found_sent, elsewhere=len(waiting) - sent)

    async def purge(self, purge: Purge) -> None:
        """Delete what was planned, for ever. Raises Unavailable."""
        if purge.position:
            await self._admin.delete_before(purge.position)

    async def resume(self, group: str, topics: Iterable[str]) -> None:
        """Tell the group's processes to go on; they look each 5 s while their breaker is open. Raises Unavailable."""
        await self._write([resume_message(topic, group) for topic in topics])

    async def _replay(self, batch: Sequence[Letter], contents: Contents, call: str) -> int:
        """Claim, send, note; returns how many were sent, all but those that another call has claimed."""
        partition = batch[0].record.topic_partition
        began = self._clock.monotonic()
        await self._write([note_message(partition, "claimed", (letter.record.offset for letter in batch), call)])
        since = sort_out(await self._admin.records_behind({partition: contents.ends[partition]}), {})
        holders = first_claims(since.open_claims)
        mine = [
            letter
            for letter in batch
            if holders.get(letter.record.offset) == call and (partition, letter.record.offset) not in since.sent
        ]
        if self._clock.monotonic() - began > _CLAIM_TO_SEND_S:
            raise Unavailable("unavailable", "the broker is too slow")
        acknowledged = await self._sender.send_in_order(
            [replay_message(letter) for letter in mine], timeout_s=_SEND_TIMEOUT_S
        )
        if acknowledged:
            sent = (letter.record.offset for letter in mine[:acknowledged])
            await self._write([note_message(partition, "sent", sent, call)])
        if acknowledged < len(mine):
            raise Unavailable("unavailable", "not all replays were acknowledged")
        return len(mine)

    async def _settle(self, letters: Sequence[Letter], claims: Sequence[Claim]) -> Sequence[Letter]:
        """Find out which letters of these open claims were sent, note it, and end the claims; returns those sent."""
        found: list[Letter] = []
        for partition in sorted({claim.record.topic_partition for claim in claims}):
            here = [claim for claim in claims if claim.record.topic_partition == partition]
            await self._wait_until_settled(partition, here)
            sent = {offset for claim in here for offset in await self._sent_under(claim, letters)}
            notes = [note_message(partition, "sent", sent, "")] if sent else []
            await self._write([*notes, note_message(partition, "lapsed", (claim.record.offset for claim in here), "")])
            found += [x for x in letters if x.record.topic_partition == partition and x.record.offset in sent]
        return found

    async def _wait_until_settled(self, partition: TopicPartition, claims: Sequence[Claim]) -> None:
        """By the broker's clock, which an empty note brings along."""
        ends = await self._admin.end_offsets([partition])
        await self._write([note_message(partition, "lapsed", (), "")])
        now_ms = max(record.timestamp_ms for record in await self._admin.records_behind(ends))
        newest_ms = max(claim.record.timestamp_ms for claim in claims)
        await self._clock.sleep(max(0, newest_ms + _SETTLED_MS - now_ms) / 1000)

    async def _sent_under(self, claim: Claim, letters: Sequence[Letter]) -> Collection[int]:
        """Offsets of the letters of this claim whose replays are in their topics."""
        place, at_ms = claim.record.topic_partition, claim.record.timestamp_ms
        named = [x for x in letters if x.record.topic_partition == place and x.record.offset in claim.offsets]
        found: set[int] = set()
        for source in sorted({TopicPartition(letter.topic, letter.partition) for letter in named}):
            records = await self._admin.records_of(
                source,
                from_ms=at_ms - _SLACK_MS,
                to_ms=at_ms + _SETTLED_MS + _SLACK_MS,
                limit=_WINDOW_RECORDS_MAX,
            )
            if len(records) == _WINDOW_RECORDS_MAX:
                raise Unavailable("unavailable", f"{source.topic} is too busy to look for what an earlier call sent")
            found |= set(replayed_among(named, records))
        return found

    async def _write(self, messages: Sequence[Message]) -> None:
        if await self._sender.send_in_order(messages, timeout_s=_NOTE_TIMEOUT_S) != len(messages):
            raise Unavailable("unavailable", "the broker did not acknowledge a note")


@asynccontextmanager
async def open_dead_letter_store(
    bootstrap: str, topics: Sequence[str], *, clock: Clock
) -> AsyncIterator[DeadLetterStore]:
    """A store on a broker, for the length of the block."""
    async with (
        Admin(bootstrap, client_id="linkmesh-dlq", timeout_s=_READ_TIMEOUT_S) as admin,
        Producer(bootstrap, client_id="linkmesh-dlq", clock=clock, message_bytes_max=_MESSAGE_BYTES_MAX) as producer,
    ):
        yield DeadLetterStore(admin=admin, sender=producer, topics=topics, clock=clock)


def _claims_on(contents: Contents, selection: Selection) -> list[Claim]:
    """The open claims that name a selected letter of which nobody knows whether it was sent."""
    claimed = [letter.record for letter in contents.letters if letter.fate is Fate.CLAIMED and selection.picks(letter)]
    places = {(record.topic_partition, record.offset) for record in claimed}
    return [
        claim
        for claim in contents.open_claims
        if any((claim.record.topic_partition, offset) in places for offset in claim.offsets)
    ]


def _batches(letters: Sequence[Letter]) -> list[Sequence[Letter]]:
    """Batches of one partition each, in the partition's order."""
    by_partition: dict[TopicPartition, list[Letter]] = defaultdict(list)
    for letter in letters:
        by_partition[letter.record.topic_partition].append(letter)
    batches: list[Sequence[Letter]] = []
    for held in by_partition.values():
        held.sort(key=lambda letter: letter.record.offset)
        batches += [held[at : at + BATCH_LETTERS_MAX] for at in range(0, len(held), BATCH_LETTERS_MAX)]
    return batches
