"""Records of `links-events` become leaves: exactly one each, in order, or none and we wait [B1]."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from audit.domain.leaf import IndexRow, KeyKind, KeyOwner, Leaf, commit, is_indexable, is_of_same_record, leaf_of
from audit.domain.log import Extension, Gap, LogState, Slot, extend, line_up
from audit.domain.merkle import TILE_WIDTH
from audit.domain.tiles import LogName, log_name
from audit.handlers.leaf_codec import decode_leaf, encode_leaf
from audit.handlers.log_files import LogFiles
from audit.ports import AccountKeys, EntryIndex, LogStoppedError, LogStorage, RecordedTopic
from chassis.errors import Unavailable
from chassis.health import SetCondition
from chassis.kafka.record import Position, Record, TopicPartition
from contracts.link import LinkEvent
from contracts.link_codec import UndecodableError, decode_event, event_type_name

LEAVES = Counter("audit_leaves", "Leaves under a signed checkpoint since the process started.", ("topic", "partition"))
ADOPTED = Counter("audit_leaves_adopted", "Leaves that a crash had left beyond the checkpoint.", ("topic", "partition"))
TREE_SIZE = Gauge("audit_tree_size", "Leaves of the log under its checkpoint.", ("topic", "partition"))
STOPPED = Gauge("audit_log_stopped", "1 while the log waits for a person.", ("topic", "partition"))

OpenLog = Callable[[LogName], LogFiles]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fact:
    """A record and what could be read in it."""

    record: Record
    leaf: Leaf  # without its commitment
    event: LinkEvent | None
    owner: KeyOwner


@dataclass(frozen=True, slots=True)
class Placed:
    """A log, and the places of the next leaves in it."""

    state: LogState
    slots: tuple[Slot, ...]
    facts: Mapping[int, Fact]  # by offset; an adopted leaf may have none


@dataclass(frozen=True, slots=True)
class Staged:
    """A log whose entries and tiles are written, and whose checkpoint is not."""

    before: LogState
    slots: int
    entries: tuple[bytes, ...]
    extension: Extension
    rows: tuple[IndexRow, ...]


class Recorder:
    """The handler of the checkpointed runner: positions come from the trees, never from Kafka [B2]."""

    def __init__(
        self,
        *,
        storage: LogStorage,
        topic: RecordedTopic,
        open_log: OpenLog,
        keys: AccountKeys,
        index: EntryIndex,
        set_condition: SetCondition,
        accept_gaps: bool,
    ) -> None:
        self._storage = storage
        self._topic = topic
        self._open_log = open_log
        self._keys = keys
        self._index = index
        self._set_condition = set_condition
        self._accept_gaps = accept_gaps
        self._states: dict[TopicPartition, LogState] = {}  # absent: unknown, to be read from the files
        self._position: dict[TopicPartition, int] = {}

    async def assigned(self, partitions: Collection[TopicPartition]) -> Position:
        """Takes the logs, and reads where each goes on. Raises Unavailable while another process has them."""
        try:
            await self._storage.acquire()
            ends = await self._topic.end_offsets(partitions)
            for place in sorted(partitions):
                state = await self._files(place).load()
                await self._check_topic(place, state, ends[place])
                self._keep(place, state)
        except Unavailable as exc:
            self._set_condition(met=False, why_not=exc.message)
            raise
        self._set_condition(met=True)
        logger.info("recording %d partitions, %d of them have a log", len(partitions), len(self._position))
        return dict(self._position)

    async def handle(self, records: Sequence[Record]) -> None:
        """Appends a leaf for each record, and signs once for each log.

        A log that fails does not hold up the others of the batch; its error is raised when they are done.
        """
        batches: dict[TopicPartition, list[Fact]] = defaultdict(list)
        for record in records:
            batches[record.topic_partition].append(_fact(record))
        # Until a log's checkpoint is written its state is what the files say, whatever interrupts us.
        states = {place: self._states.pop(place, None) for place in batches}
        failures: list[Unavailable] = []
        placed: dict[TopicPartition, Placed] = {}
        for place, facts in batches.items():
            try:
                placed[place] = await self._place(place, states[place], facts)
            except Unavailable as exc:
                failures.append(exc)
        await self._record(placed, failures)
        self._tell(batches, failures)

    async def revoked(self, partitions: Collection[TopicPartition]) -> Position:
        """Nothing is held back: what was handled is stored."""
        position = {place: self._position[place] for place in partitions if place in self._position}
        for place in partitions:
            self._states.pop(place, None)
        return position

    async def checkpoint(self) -> Position:
        """The records behind the last leaf of each log."""
        return dict(self._position)

    async def _record(self, placed: Mapping[TopicPartition, Placed], failures: list[Unavailable]) -> None:
        """Keys, entries, tiles, index rows, checkpoints: for all logs of a batch together, in this order [B3]."""
        keys = await self._keys.of(_key_owners(placed.values()))
        staged: dict[TopicPartition, Staged] = {}
        for place, plan in placed.items():
            try:
                staged[place] = await self._stage(place, plan, keys)
            except Unavailable as exc:
                failures.append(exc)
        await self._index.store([row for log in staged.values() for row in log.rows])
        for place, log in staged.items():
            try:
                await self._seal(place, log)
            except Unavailable as exc:
                failures.append(exc)

    async def _place(self, place: TopicPartition, known: LogState | None, facts: Sequence[Fact]) -> Placed:
        state = known if known is not None else await self._files(place).load()
        first = state.next_offset or 0
        await self._check_repeats(place, state, [fact for fact in facts if fact.record.offset < first])
        fresh = {fact.record.offset: fact for fact in facts if fact.record.offset >= first}
        slots = line_up(state, list(fresh), accept_gaps=self._accept_gaps)
        if isinstance(slots, Gap):
            raise LogStoppedError(
                log_name(*place), f"record {slots.expected} should come next, but Kafka goes on at {slots.found}"
            )
        for slot in slots:
            fact = fresh.get(slot.offset)
            if slot.entry is not None and fact and not is_of_same_record(fact.leaf, decode_leaf(slot.entry)):
                raise LogStoppedError(log_name(*place), f"record {slot.offset} is not the one that was begun to record")
        return Placed(state, slots, fresh)

    async def _stage(self, place: TopicPartition, plan: Placed, keys: Mapping[KeyOwner, bytes]) -> Staged:
        entries: list[bytes] = []
        rows: list[IndexRow] = []
        for slot in plan.slots:
            fact = plan.facts.get(slot.offset)
            if fact is not None and fact.event is not None and is_indexable(fact.event):
                rows.append(_row(fact.event, fact.record, plan.state.tree.size + len(entries)))
            if slot.entry is not None:
                entries.append(slot.entry)
            else:
                assert fact is not None, "a slot without an entry is a record's"
                entries.append(encode_leaf(commit(fact.leaf, fact.record.value, keys[fact.owner])))
        extension = extend(plan.state, entries)
        await self._files(place).write(extension)
        return Staged(plan.state, len(plan.slots), tuple(entries), extension, tuple(rows))

    async def _seal(self, place: TopicPartition, log: Staged) -> None:
        if not log.entries:
            self._keep(place, log.before)
            return
        note = await self._files(place).seal(log.before, log.extension)
        last = log.entries[-1]
        last_offset = decode_leaf(last).offset
        left = tuple(item for item in log.before.adopted if item.offset > last_offset)
        self._keep(place, LogState(log.extension.tree, log.extension.bundle, last_offset, last, note, left))
        labels = (place.topic, str(place.partition))
        LEAVES.labels(*labels).inc(len(log.entries))
        ADOPTED.labels(*labels).inc(len(log.before.adopted) - len(left))

    async def _check_repeats(self, place: TopicPartition, state: LogState, facts: Sequence[Fact]) -> None:
        """Records that have their leaf already are fine, if it is theirs; else the topic is not the one we recorded."""
        files, size = self._files(place), state.tree.size
        bundles: dict[int, tuple[bytes, ...]] = {}
        for fact in facts:
            leaf_index = size - ((state.next_offset or 0) - fact.record.offset)
            index, at = divmod(leaf_index, TILE_WIDTH)
            if leaf_index >= 0 and index not in bundles:
                bundles[index] = await files.bundle(index, size)
            if leaf_index < 0 or not is_of_same_record(fact.leaf, decode_leaf(bundles[index][at])):
                raise LogStoppedError(
                    log_name(*place), f"Kafka has another record {fact.record.offset} than the one that was recorded"
                )

    async def _check_topic(self, place: TopicPartition, state: LogState, end: int) -> None:
        """The topic must still be the one that was recorded: a new one under its name would be passed over in part."""
        if state.last_offset is None:
            return
        record = await self._topic.record_at(place, state.last_offset)
        if record is None and end > state.last_offset:
            return  # all that was recorded has aged out, and nothing came since
        aged_out = record is not None and record.offset > state.last_offset
        if aged_out or (record and is_of_same_record(_fact(record).leaf, decode_leaf(state.last_entry))):
            return
        raise LogStoppedError(
            log_name(*place), f"record {state.last_offset} was recorded, and the topic has another one there, or none"
        )

    def _keep(self, place: TopicPartition, state: LogState) -> None:
        self._states[place] = state
        if state.next_offset is not None:
            self._position[place] = state.next_offset
        TREE_SIZE.labels(place.topic, str(place.partition)).set(state.tree.size)

    def _tell(self, places: Collection[TopicPartition], failures: Sequence[Unavailable]) -> None:
        """Says how it went; raises the first failure, a stopped log's before any other."""
        stopped = [failure for failure in failures if isinstance(failure, LogStoppedError)]
        for place in places:
            waits = any(failure.log == log_name(*place) for failure in stopped)
            STOPPED.labels(place.topic, str(place.partition)).set(waits)
        for failure in stopped:
            logger.error("stopped: %s", failure.message)
        worst = next(iter([*stopped, *failures]), None)
        if worst is not None:
            self._set_condition(met=False, why_not=worst.message)
            raise worst
        self._set_condition(met=True)

    def _files(self, place: TopicPartition) -> LogFiles:
        return self._open_log(log_name(*place))


def _fact(record: Record) -> Fact:
    event_type = record.header("ce_type")
    leaf = leaf_of(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        event_id=record.header("ce_id"),
        event_type=event_type,
    )
    try:
        event = decode_event(event_type or "", record.value)
    except UndecodableError:
        event = None  # its bytes are recorded all the same
    if event is None or not is_indexable(event) or not event.user_id:
        return Fact(record, leaf, event, KeyOwner(KeyKind.LOG, log_name(record.topic, record.partition)))
    return Fact(record, leaf, event, KeyOwner(KeyKind.ACCOUNT, event.user_id))


def _key_owners(placed: Collection[Placed]) -> set[KeyOwner]:
    return {
        plan.facts[slot.offset].owner for plan in placed for slot in plan.slots if slot.entry is None
    }  # fmt: skip


def _row(event: LinkEvent, record: Record, leaf_index: int) -> IndexRow:
    return IndexRow(
        user_id=event.user_id,
        key=event.link.key,
        short_code=event.link.short_code,
        version=event.version,
        at=event.at,
        event_id=event.event_id,
        event_type=event_type_name(event.type),
        partition=record.partition,
        offset=record.offset,
        leaf_index=leaf_index,
    )
