"""A world in memory for the recorder: what outlives its processes, and the runner that hands it records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from audit.domain.checkpoint import Signer
from audit.domain.leaf import Leaf
from audit.domain.tiles import LogName, log_name
from audit.domain.verify import verify
from audit.handlers.leaf_codec import decode_leaf
from audit.handlers.log_files import LogFiles
from audit.handlers.recorder import Recorder
from chassis.kafka.record import Record, TopicPartition
from tests.fakes.audit_ports import (
    Database,
    Disk,
    FakeAccountKeys,
    FakeEntryIndex,
    FakeLogStorage,
    FakeRecordedTopic,
    Fuse,
)
from tests.fakes.link_events import event_of, make_link, record_of

TOPIC = "links-events"
PLACES = (TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1))


def signer(log: LogName) -> Signer:
    """The signer of a log."""
    return Signer(f"log.example/audit/{log}", bytes(32))


def record(partition: int, offset: int) -> Record:
    """A record; every fifth cannot be decoded."""
    made = record_of(
        event_of(make_link(f"link-{partition}-{offset}", user_id=f"user-{offset % 3}")),
        partition=partition,
        offset=offset,
    )
    return replace(made, value=b"\xff") if offset % 5 == 4 else made


@dataclass
class World:
    """What outlives processes, and the topic's records; `living` is the process that runs now."""

    records: list[Record]
    accept_gaps: bool = False
    disk: Disk = field(default_factory=Disk)
    database: Database = field(default_factory=Database)
    told: list[tuple[bool, str]] = field(default_factory=list)

    def process(self, fuse: Fuse | None = None) -> Recorder:
        """A new process on the same disk and database; the one before it is dead."""
        storage = FakeLogStorage(self.disk, fuse)
        self.disk.owner = None
        return Recorder(
            storage=storage,
            topic=FakeRecordedTopic(self.records),
            open_log=lambda log: LogFiles(storage, log, signer(log)),
            keys=FakeAccountKeys(self.database, fuse),
            index=FakeEntryIndex(self.database, fuse),
            set_condition=self._tell,
            accept_gaps=self.accept_gaps,
        )

    def _tell(self, met: bool, why_not: str = "") -> None:
        self.told.append((met, why_not))

    def leaves(self, partition: int = 0) -> list[Leaf]:
        """The leaves of a log, proved from its files."""
        log = log_name(TOPIC, partition)
        if (log, "checkpoint") not in self.disk.files:
            return []
        found = verify(lambda path: self.disk.files.get((log, path)), signer(log).verifier)
        return [decode_leaf(entry) for entry in found.entries]

    def check_complete(self) -> None:
        """Each record has its one leaf, in order, and each that names an account and a link its row."""
        for place in PLACES:
            wanted = [record for record in self.records if record.topic_partition == place]
            leaves = self.leaves(place.partition)
            assert [leaf.offset for leaf in leaves] == [record.offset for record in wanted]
            assert [leaf.event_id for leaf in leaves] == [record.header("ce_id") for record in wanted]
            rows = {offset: row for (at, offset), row in self.database.rows.items() if at == place.partition}
            assert sorted(rows) == [record.offset for record in wanted if record.value != b"\xff"]
            assert all(leaves[row.leaf_index].offset == offset for offset, row in rows.items())


async def consume(world: World, recorder: Recorder, sizes: Callable[[], int]) -> None:
    """What the runner does: from the position that the handler names, in batches, partitions mixed."""
    position = await recorder.assigned(PLACES)
    left = [r for r in world.records if r.offset >= position.get(r.topic_partition, 0)]
    while left:
        size = sizes()
        await recorder.handle(left[:size])
        left = left[size:]


def mixed(counts: Sequence[int]) -> list[Record]:
    """Records of several partitions, taking turns."""
    records = [record(partition, offset) for partition, count in enumerate(counts) for offset in range(count)]
    return sorted(records, key=lambda r: (r.offset, r.partition))
