"""The keyed runner's state: what is in flight, what waits, what may be committed. Pure: no clock, no I/O.

After the shards and partition states of Confluent's Parallel Consumer: one queue per key of which only the head is
worked on, and per partition the ordered set of unfinished offsets, whose lowest is the commit position.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count

from chassis.kafka.record import Position, Record, Rejected, TopicPartition


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A record handed out to be worked on. It comes back by one of `complete`, `release`, `reject`, `bury_later`.

    `attempts`: how often the handler has rejected the record so far. `verdict`: given up on, to be buried, not handled.
    """

    record: Record
    epoch: int
    attempts: int
    first_failed_at_ms: int | None
    verdict: Rejected | None


class Step(Enum):
    """What becomes of a rejected record."""

    RETRY = auto()  # later, by itself
    BURY = auto()  # the caller sends it to the dead letters now, then completes it
    STALE = auto()  # its partition is no longer ours: nothing


@dataclass(slots=True, eq=False)
class _Entry:
    record: Record
    epoch: int
    attempts: int = 0
    first_failed_at_ms: int | None = None
    verdict: Rejected | None = None


@dataclass(slots=True, eq=False)
class _Lane:
    """One key. At most one of: handed out (`ticket`), waiting for a due time (`due`), ready (in the ready queue)."""

    queue: deque[_Entry] = field(default_factory=deque)
    ticket: Ticket | None = None
    due: float | None = None


@dataclass(slots=True)
class _Partition:
    epoch: int
    unfinished: dict[int, _Entry] = field(default_factory=dict)  # in offset order
    next_offset: int | None = None  # behind the last record seen
    committed: int | None = None
    full: bool = False


class Window:
    """Unfinished records of the assigned partitions.

    `records_max` unfinished records fill a partition, `bytes_max` fill them all; both are full until half is left.
    `retry_delays_s`: the waits before the second, third … attempt; after the last of them the record is given up.
    """

    def __init__(self, *, records_max: int, bytes_max: int, retry_delays_s: Sequence[float]) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._retry_delays_s = tuple(retry_delays_s)
        self._epochs = count(1)
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._lanes: dict[bytes, _Lane] = {}
        self._ready: deque[bytes] = deque()
        self._due: list[tuple[float, int, bytes, _Entry]] = []
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
            self._partitions[partition] = _Partition(epoch=next(self._epochs))

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
            self._bytes -= sum(_size(e.record) for e in lane.queue if e.record.topic_partition in gone)
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
        if skip:
            return True
        entry = _Entry(record, partition.epoch)
        partition.unfinished[record.offset] = entry
        self._bytes += _size(record)
        lane = self._lanes.setdefault(record.key, _Lane())
        lane.queue.append(entry)
        if len(lane.queue) == 1 and lane.ticket is None:
            self._ready.append(record.key)
        return True

    def full(self) -> frozenset[TopicPartition]:
        """The partitions from which nothing more should be read now."""
        self._bytes_full = self._bytes >= (self._bytes_max // 2 if self._bytes_full else self._bytes_max)
        for partition in self._partitions.values():
            limit = self._records_max // 2 if partition.full else self._records_max
            partition.full = len(partition.unfinished) >= max(1, limit)
        return frozenset(tp for tp, partition in self._partitions.items() if partition.full or self._bytes_full)

    # Work

    @property
    def in_flight(self) -> int:
        """How many records are handed out."""
        return self._in_flight

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
            self._bytes -= _size(ticket.record)
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
        marks = {tp: self._watermark(partition) for tp, partition in self._partitions.items()}
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
        return self._watermark(self._partitions[partition])

    # Inside

    @staticmethod
    def _watermark(partition: _Partition) -> int | None:
        return next(iter(partition.unfinished), partition.next_offset)

    def _entry(self, ticket: Ticket, lane: _Lane) -> _Entry | None:
        """The entry of a ticket that is out; None when its partition has changed hands since."""
        if lane.ticket is not ticket:
            raise ValueError("this ticket is not out")
        partition = self._partitions.get(ticket.record.topic_partition)
        if partition is None or partition.epoch != ticket.epoch:
            return None
        return partition.unfinished[ticket.record.offset]

    def _returned(self, ticket: Ticket) -> tuple[_Lane, _Entry | None]:
        lane = self._lanes[ticket.record.key]
        entry = self._entry(ticket, lane)
        lane.ticket = None
        self._in_flight -= 1
        return lane, entry

    def _open(self, key: bytes, lane: _Lane) -> None:
        """The head of this lane, if any, may go on; an empty lane is dropped."""
        if not lane.queue:
            if lane.ticket is None:
                self._lanes.pop(key, None)
            return
        if lane.ticket is None and lane.due is None:
            self._ready.append(key)

    def _wait(self, key: bytes, lane: _Lane, entry: _Entry, due: float) -> None:
        lane.due = due
        heapq.heappush(self._due, (due, next(self._due_order), key, entry))

    def _promote(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, key, entry = heapq.heappop(self._due)
            lane = self._lanes.get(key)
            if lane is None or lane.due is None or not lane.queue or lane.queue[0] is not entry:
                continue  # its partition was revoked while it waited
            lane.due = None
            self._ready.append(key)


def _size(record: Record) -> int:
    return len(record.key) + len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
