"""The keyed runner's state: what is in flight, what waits, what may be committed. Pure: no clock, no I/O.

After the shards and partition states of Confluent's Parallel Consumer: one queue per key of which only the head is
worked on, and per partition the ordered set of unfinished offsets, whose lowest is the commit position.

Invariants, which the state machine of tests/unit/kafka/test_window.py holds against random histories:

- What may be committed is never beyond the lowest unfinished record, and no less than the records allow.
- Of a key at most one record is out, and it is the oldest unfinished one.
- A record that was given up on is unfinished until `complete` says that its dead letter was acknowledged.
- A ticket of an earlier assignment (epoch) of its partition changes nothing, except that its key opens again.
- Attempts are counted by `reject` alone, and a record is given up on only after a rejection.
- The bytes of all unfinished records are what counts towards `bytes_max`; a partition that is full is told as such.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import count

from chassis.kafka.record import Position, Record, Rejected, TopicPartition
from chassis.kafka.window_parts import Entry, Lane, Partition, Step, Ticket, size_of

__all__ = ["Step", "Ticket", "Window"]

_CROWDED = 0.9  # share of a limit from which on the head of the line is looked at
_OTHERS_MAX = 0.02  # share of the crowd that the head does not hold up


class Window:
    """Unfinished records of the assigned partitions.

    `records_max` unfinished records fill a partition, `bytes_max` fill them all; both are full until half is left.
    `span_max` offsets from the watermark on fill a partition, too, finished or not: they come again after a crash.
    `retry_delays_s`: the waits before the second, third … attempt; after the last of them the record is given up.
    """

    def __init__(
        self, *, records_max: int, bytes_max: int, retry_delays_s: Sequence[float], span_max: int = 50_000
    ) -> None:
        self._records_max = records_max
        self._span_max = span_max
        self._bytes_max = bytes_max
        self._retry_delays_s = tuple(retry_delays_s)
        self._epochs = count(1)
        self._partitions: dict[TopicPartition, Partition] = {}
        self._lanes: dict[bytes, Lane] = {}
        self._ready: deque[bytes] = deque()
        self._due: list[tuple[float, int, bytes, Entry]] = []
        self._due_order = count()
        self._bytes = 0
        self._bytes_full = False
        self._in_flight = 0

    # Ownership

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """The partitions that are ours."""
        return self._partitions.keys()

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """These are ours from now on, with nothing of them known. Work handed out earlier counts for nothing."""
        wanted = list(partitions)
        self.revoke(wanted)
        for partition in wanted:
            self._partitions[partition] = Partition(epoch=next(self._epochs))

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget these. A key whose record is still handed out stays closed until that ticket is back."""
        gone = {partition for partition in partitions if self._partitions.pop(partition, None) is not None}
        if not gone:
            return
        for key, lane in list(self._lanes.items()):
            kept = deque(entry for entry in lane.queue if entry.record.topic_partition not in gone)
            if len(kept) == len(lane.queue):
                continue
            head_stays = bool(kept) and kept[0] is lane.queue[0]
            self._bytes -= sum(size_of(e.record) for e in lane.queue if e.record.topic_partition in gone)
            lane.queue = kept
            if lane.ticket is None and not head_stays:
                lane.due = None
                self._open(key, lane)
        self._bytes_full = self._bytes_full and self._bytes > self._bytes_max // 2

    # Intake

    def add(self, record: Record, *, skip: bool = False) -> bool:
        """Take in a record; `skip` counts it as finished at once. False: not ours, or seen before."""
        partition = self._partitions.get(record.topic_partition)
        if partition is None or (partition.next_offset is not None and record.offset < partition.next_offset):
            return False
        if partition.next_offset is None:
            partition.committed = record.offset  # nothing before it is ours to commit
        partition.next_offset = record.offset + 1
        partition.newest_ms = max(partition.newest_ms, record.timestamp_ms)
        if skip:
            return True
        entry = Entry(record, partition.epoch)
        partition.unfinished[record.offset] = entry
        self._bytes += size_of(record)
        lane = self._lanes.setdefault(record.key, Lane())
        lane.queue.append(entry)
        if len(lane.queue) == 1 and lane.ticket is None:
            self._ready.append(record.key)
        return True

    def begun_anew(self, record: Record) -> bool:
        """Whether this record is of another log under the same name: an offset of before, at a time that is news.

        The topic was deleted and created again; `assign` the partition once more before `add`.
        """
        partition = self._partitions.get(record.topic_partition)
        if partition is None or partition.next_offset is None:
            return False
        return record.offset < partition.next_offset and record.timestamp_ms > partition.newest_ms

    def full(self) -> frozenset[TopicPartition]:
        """The partitions from which nothing more should be read now."""
        self._bytes_full = self._bytes >= (self._bytes_max // 2 if self._bytes_full else self._bytes_max)
        for partition in self._partitions.values():
            share = 2 if partition.full else 1
            partition.full = (
                len(partition.unfinished) >= max(1, self._records_max // share)
                or partition.span >= self._span_max // share
            )
        return frozenset(tp for tp, partition in self._partitions.items() if partition.full or self._bytes_full)

    def unblock(self) -> Sequence[Record]:
        """The head-of-line rule: give up on a record that waits for another attempt at the head of a crowded partition
        in which nearly everything else is finished or waits behind it. Returns those given up on, in no order.
        """
        blockers = [entry for entry in map(self._blocker, self._partitions.values()) if entry is not None]
        for entry in blockers:
            entry.verdict = entry.rejected
            lane = self._lanes[entry.record.key]
            lane.due = None
            self._ready.append(entry.record.key)
        return [entry.record for entry in blockers]

    # Work

    @property
    def in_flight(self) -> int:
        """How many records are handed out."""
        return self._in_flight

    @property
    def size_bytes(self) -> int:
        """The bytes of all unfinished records."""
        return self._bytes

    @property
    def empty(self) -> bool:
        """Whether nothing of our partitions is unfinished."""
        return not any(partition.unfinished for partition in self._partitions.values())

    def take(self, limit: int, *, now: float) -> Sequence[Ticket]:
        """Hand out up to `limit` records, each the head of its key, none of a key that is out or waiting."""
        self._promote(now)
        tickets: list[Ticket] = []
        while self._ready and len(tickets) < limit:
            lane = self._lanes.get(self._ready.popleft())
            if lane is None or lane.ticket is not None or lane.due is not None or not lane.queue:
                continue  # left over from a revoked partition
            entry = lane.queue[0]
            lane.ticket = Ticket(entry.record, entry.epoch, entry.attempts, entry.first_failed_at_ms, entry.verdict)
            tickets.append(lane.ticket)
        self._in_flight += len(tickets)
        return tickets

    def next_due(self) -> float | None:
        """When the next waiting record may be tried again, in the clock of `now`; None: none waits."""
        return self._due[0][0] if self._due else None

    def complete(self, ticket: Ticket) -> bool:
        """The record is finished: handled, or its dead letter acknowledged. False: it was no longer ours."""
        lane, entry = self._returned(ticket)
        if entry is not None:
            lane.queue.popleft()
            del self._partitions[ticket.record.topic_partition].unfinished[ticket.record.offset]
            self._bytes -= size_of(ticket.record)
        self._open(ticket.record.key, lane)
        return entry is not None

    def release(self, ticket: Ticket) -> None:
        """Not handled, and not its fault: as if it had never been handed out, but behind what is ready [C1]."""
        lane, _ = self._returned(ticket)
        self._open(ticket.record.key, lane)

    def reject(self, ticket: Ticket, verdict: Rejected, *, now: float, wall_ms: int) -> Step:
        """The handler rejected the record: wait and retry, or give up [C2]. After BURY the ticket is still out."""
        lane = self._lanes[ticket.record.key]
        entry = self._entry(ticket, lane)
        if entry is None:
            self._returned(ticket)
            self._open(ticket.record.key, lane)
            return Step.STALE
        entry.attempts += 1
        entry.rejected = verdict
        entry.first_failed_at_ms = entry.first_failed_at_ms or wall_ms
        if not verdict.retry or entry.attempts > len(self._retry_delays_s):
            entry.verdict = verdict
            return Step.BURY
        self._returned(ticket)
        self._wait(ticket.record.key, lane, entry, now + self._retry_delays_s[entry.attempts - 1])
        return Step.RETRY

    def bury_later(self, ticket: Ticket, *, due: float) -> None:
        """The dead letters did not take it: it waits, and comes out of `take` again with its verdict."""
        lane, entry = self._returned(ticket)
        if entry is None:
            self._open(ticket.record.key, lane)
        else:
            self._wait(ticket.record.key, lane, entry, due)

    # Position

    def progress(self) -> Position:
        """What may be committed and has not been: the lowest unfinished offset, or the one behind the last seen."""
        marks = {tp: partition.watermark for tp, partition in self._partitions.items()}
        return {tp: mark for tp, mark in marks.items() if mark is not None and mark != self._partitions[tp].committed}

    def committed(self, position: Position) -> None:
        """These were committed."""
        for tp, offset in position.items():
            if tp in self._partitions:
                self._partitions[tp].committed = offset

    def oldest(self, partition: TopicPartition) -> Record | None:
        """The lowest unfinished record of a partition."""
        entry = next(iter(self._partitions[partition].unfinished.values()), None)
        return None if entry is None else entry.record

    def next_offset(self, partition: TopicPartition) -> int | None:
        """The offset behind the last record taken in; None: none yet."""
        return self._partitions[partition].next_offset

    def watermark(self, partition: TopicPartition) -> int | None:
        """The next offset to commit; None: nothing taken in yet."""
        return self._partitions[partition].watermark

    # Inside

    def _blocker(self, partition: Partition) -> Entry | None:
        """The record that waits at the head of a crowded partition and holds up nearly all of it."""
        unfinished, span = len(partition.unfinished), partition.span
        if unfinished < _CROWDED * self._records_max and span < _CROWDED * self._span_max:
            return None
        head = next(iter(partition.unfinished.values()), None)
        if head is None or head.rejected is None or head.verdict is not None:
            return None
        lane = self._lanes[head.record.key]
        if lane.due is None:  # what was rejected is the head of its key until it is finished
            return None
        behind_it = sum(entry.epoch == partition.epoch for entry in lane.queue)  # an epoch is of one partition
        return head if unfinished - behind_it <= _OTHERS_MAX * span else None

    def _entry(self, ticket: Ticket, lane: Lane) -> Entry | None:
        """The entry of a ticket that is out; None when its partition has changed hands since."""
        if lane.ticket is not ticket:
            raise ValueError("this ticket is not out")
        partition = self._partitions.get(ticket.record.topic_partition)
        if partition is None or partition.epoch != ticket.epoch:
            return None
        return partition.unfinished[ticket.record.offset]

    def _returned(self, ticket: Ticket) -> tuple[Lane, Entry | None]:
        lane = self._lanes[ticket.record.key]
        entry = self._entry(ticket, lane)
        lane.ticket = None
        self._in_flight -= 1
        return lane, entry

    def _open(self, key: bytes, lane: Lane) -> None:
        """The head of this lane, if any, may go on; an empty lane is dropped."""
        if not lane.queue:
            if lane.ticket is None:
                self._lanes.pop(key, None)
            return
        if lane.ticket is None and lane.due is None:
            self._ready.append(key)

    def _wait(self, key: bytes, lane: Lane, entry: Entry, due: float) -> None:
        lane.due = due
        heapq.heappush(self._due, (due, next(self._due_order), key, entry))

    def _promote(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, _, key, entry = heapq.heappop(self._due)
            lane = self._lanes.get(key)
            if lane is None or lane.due != due or not lane.queue or lane.queue[0] is not entry:
                continue  # its partition was revoked while it waited, or it was given up on
            lane.due = None
            self._ready.append(key)
