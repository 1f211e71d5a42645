"""The audit service's ports in memory, and a fuse that makes the process die between any two of their steps.

What is durable (`Disk`, `Database`) outlives the process; the ports on it die with it. tests/contract/audit proves that
they keep the promises of the real ones.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from audit.domain.leaf import ACCOUNT_KEY_BYTES, IndexRow, KeyOwner
from audit.domain.listing import Cursor
from audit.domain.tiles import CHECKPOINT, LogName, Resource
from audit.ports import LogStoppedError
from chassis.errors import Unavailable
from chassis.kafka.record import Position, Record, TopicPartition
from contracts.link import EventId, LinkKey, UserId

_ROWS_PER_STEP = 25


class CrashedError(Exception):
    """The process has died: nothing of it does anything any more."""


@dataclass
class Fuse:
    """Counts the steps that change something durable; at step number `burns_at` (from 1) it raises `error`: before the
    change, or behind it (`late`): done, but nobody was told.
    """

    burns_at: int = 0  # 0: never
    error: Exception = field(default_factory=CrashedError)
    late: bool = False
    steps: int = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """One more step. A dead process takes no further one; a dependency that was away comes back."""
        self.steps += 1
        burns = self.steps == self.burns_at
        dead = isinstance(self.error, CrashedError) and 0 < self.burns_at < self.steps
        if dead or (burns and not self.late):
            raise self.error
        yield
        if burns:
            raise self.error


@dataclass
class Disk:
    """Files of logs, and who may write."""

    files: dict[tuple[LogName, str], bytes] = field(default_factory=dict)
    owner: object | None = None


@dataclass
class Database:
    """Account keys and index rows."""

    keys: dict[KeyOwner, bytes] = field(default_factory=dict)
    rows: dict[tuple[int, int], IndexRow] = field(default_factory=dict)


class FakeLogStorage:
    """A LogStorage on a Disk."""

    def __init__(self, disk: Disk, fuse: Fuse | None = None) -> None:
        self._disk = disk
        self._fuse = fuse or Fuse()

    def close(self) -> None:
        """The process ends, well or not: the lock is free."""
        if self._disk.owner is self:
            self._disk.owner = None

    async def acquire(self) -> None:
        """Takes the disk."""
        if self._disk.owner not in (None, self):
            raise Unavailable("unavailable", "Another process writes the audit logs.")
        self._disk.owner = self

    async def read(self, log: LogName, path: str) -> bytes | None:
        """The content."""
        return self._disk.files.get((log, path))

    async def names(self, log: LogName, folder: str) -> Sequence[str]:
        """The names directly in a folder."""
        paths = [
            path.removeprefix(f"{folder}/")
            for of, path in self._disk.files
            if of == log and path.startswith(f"{folder}/")
        ]
        return [path for path in paths if "/" not in path]

    async def write(self, log: LogName, resources: Sequence[Resource]) -> None:
        """Each resource is a step."""
        self._check()
        for resource in resources:
            with self._fuse.step():
                if self._disk.files.setdefault((log, resource.path), resource.data) != resource.data:
                    raise LogStoppedError(log, f"{resource.path} is there with another content")

    async def replace_checkpoint(self, log: LogName, expected: bytes | None, new: bytes) -> None:
        """One step."""
        self._check()
        with self._fuse.step():
            if self._disk.files.get((log, CHECKPOINT)) not in (expected, new):
                raise LogStoppedError(log, "another process has written the checkpoint")
            self._disk.files[log, CHECKPOINT] = new

    async def forget(self, log: LogName, folders: Sequence[str]) -> None:
        """One step for each folder."""
        for folder in folders:
            with self._fuse.step():
                for key in [key for key in self._disk.files if key[0] == log and key[1].startswith(f"{folder}/")]:
                    del self._disk.files[key]

    def _check(self) -> None:
        if self._disk.owner is not self:
            raise Unavailable("unavailable", "The audit directory is not ours to write.")


class FakeAccountKeys:
    """AccountKeys in a Database; each new key is a step, and unlike any other."""

    def __init__(self, database: Database, fuse: Fuse | None = None) -> None:
        self._database = database
        self._fuse = fuse or Fuse()

    async def of(self, owners: Collection[KeyOwner]) -> Mapping[KeyOwner, bytes]:
        """The keys."""
        for owner in sorted(owners, key=lambda owner: (owner.kind.value, owner.name)):
            if owner not in self._database.keys:
                with self._fuse.step():
                    self._database.keys[owner] = len(self._database.keys).to_bytes(ACCOUNT_KEY_BYTES, "big")
        return {owner: self._database.keys[owner] for owner in owners}


class FakeEntryIndex:
    """EntryIndex in a Database; each 25 rows are a step, since that is what a real one writes at a time."""

    def __init__(self, database: Database, fuse: Fuse | None = None) -> None:
        self._database = database
        self._fuse = fuse or Fuse()

    async def store(self, rows: Sequence[IndexRow]) -> None:
        """Keeps the rows by place."""
        for at in range(0, len(rows), _ROWS_PER_STEP):
            with self._fuse.step():
                self._database.rows |= {(row.partition, row.offset): row for row in rows[at : at + _ROWS_PER_STEP]}

    async def of_account(self, user_id: UserId, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        """Newest first."""
        rows = [row for row in self._database.rows.values() if row.user_id == user_id]
        rows.sort(key=lambda row: (row.at, row.partition, row.offset), reverse=True)
        if after:
            rows = [
                row for row in rows if (row.at, row.partition, row.offset) < (after.at, after.partition, after.offset)
            ]
        return rows[:limit]

    async def of_link(self, key: LinkKey, *, limit: int, after: Cursor | None) -> Sequence[IndexRow]:
        """Oldest first."""
        rows = sorted(self._of_link(key), key=lambda row: (row.partition, row.offset))
        if after:
            rows = [row for row in rows if (row.partition, row.offset) > (after.partition, after.offset)]
        return rows[:limit]

    async def has_earlier(self, row: IndexRow, event_id: EventId) -> bool:
        """Looks at the link's rows before."""
        place = (row.partition, row.offset)
        return any(
            other.event_id == event_id and (other.partition, other.offset) < place for other in self._of_link(row.key)
        )

    def _of_link(self, key: LinkKey) -> list[IndexRow]:
        return [row for row in self._database.rows.values() if row.key == key]


class FakeRecordedTopic:
    """A topic whose records a test sets."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.records = list(records)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Position:
        """The ends; 0 for a partition without records."""
        return {
            place: max((record.offset + 1 for record in self.records if record.topic_partition == place), default=0)
            for place in partitions
        }

    async def record_at(self, partition: TopicPartition, offset: int) -> Record | None:
        """The first record from there on."""
        found = [r for r in self.records if r.topic_partition == partition and r.offset >= offset]
        return min(found, key=lambda record: record.offset, default=None)
