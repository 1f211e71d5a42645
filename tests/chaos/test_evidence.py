"""What is held against the rows beside the history finds what is planted, too."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from audit.domain.checkpoint import Signer
from audit.handlers.log_files import LogFiles
from audit.handlers.recorder import Recorder
from chassis.kafka.record import Record, TopicPartition
from contracts.link import EventType, LinkEvent
from contracts.link_codec import encode_event, event_type_name
from tests.chaos.evidence import check_audit, check_dead_letters, check_deliveries, check_topic
from tests.chaos.judge import Rows
from tests.chaos.test_judge import event
from tests.fakes.audit_ports import Database, Disk, FakeAccountKeys, FakeEntryIndex, FakeLogStorage, FakeRecordedTopic

_URL = "https://example.org/"
_EVENTS = [event(1, EventType.CREATED, "m1", _URL), event(2, EventType.DELETED, "m1", _URL)]
_ROWS = Rows({"c": _EVENTS}, {"c": _EVENTS[-1].link})


def record(offset: int, one: LinkEvent) -> Record:
    """The record of an event."""
    headers = (("ce_type", event_type_name(one.type).encode()),)
    return Record("links-events", 0, offset, 0, b"c", encode_event(one), headers)


def letter(key: str, group: str) -> Record:
    """A dead letter."""
    return Record("links-events-dlq", 0, 0, 0, key.encode(), b"", (("dlq_group", group.encode()),))


def body(one: LinkEvent) -> dict[str, object]:
    """What a webhook tells of an event."""
    link = one.link
    data = {"short_code": link.short_code, "version": link.version, "link": {"long_url": link.long_url}}
    return {"type": one.type.value, "data": data}


def test_a_topic_that_tells_the_same_is_good_late_repeats_included() -> None:
    """v1 v2 v1 v2: first occurrences are in order (O2)."""
    once = [record(0, _EVENTS[0]), record(1, _EVENTS[1])]
    again = [record(2, _EVENTS[0]), record(3, _EVENTS[1])]

    assert check_topic([*once, *again], _ROWS, []) == []


def test_a_topic_with_a_gap_an_inversion_or_a_stranger_is_found() -> None:
    """As is an event that only one of topic and table has."""
    first, second = record(0, _EVENTS[0]), record(1, _EVENTS[1])
    poison = Record("links-events", 0, 2, 0, b"p", b"\xff", ())

    assert check_topic([second, first], _ROWS, [])
    assert check_topic([first], _ROWS, [])
    assert check_topic([first, second], Rows({"c": _EVENTS[:1]}, {}), [])
    assert check_topic([first, second, poison], _ROWS, [])
    assert check_topic([first, second, poison], _ROWS, ["p"]) == []


def test_only_poison_is_dead_and_all_of_it() -> None:
    """A letter of an honest record is found, and so is a poison record without a letter."""
    assert check_dead_letters([letter("p", "webhooks")], ["p"], ["webhooks"]) == []
    assert check_dead_letters([letter("p", "webhooks"), letter("c", "webhooks")], ["p"], ["webhooks"])
    assert check_dead_letters([], ["p"], ["webhooks"])


def test_each_endpoint_is_told_of_all_of_its_account_and_of_nothing_else() -> None:
    """Twice is allowed; never, otherwise, or of another account is found."""
    first, second = _EVENTS
    one: dict[str, list[dict[str, object]]] = {
        first.event_id: [body(first), body(first)],
        second.event_id: [body(second)],
    }
    once: dict[str, list[dict[str, object]]] = {first.event_id: [body(first)]}
    wrong: dict[str, list[dict[str, object]]] = {first.event_id: [body(second)], second.event_id: [body(second)]}
    more: dict[str, list[dict[str, object]]] = {**one, "x": [body(first)]}

    assert check_deliveries({"one": one}, {"one": "ada"}, _ROWS) == []
    assert check_deliveries({"one": once}, {"one": "ada"}, _ROWS)
    assert check_deliveries({"one": one}, {"one": "bob"}, _ROWS)
    assert check_deliveries({"one": more}, {"one": "ada"}, _ROWS)
    assert check_deliveries({"one": wrong}, {"one": "ada"}, _ROWS)


def recorded(state: Path, records: Sequence[Record]) -> None:
    """The audit log's files, made by its own recorder, where a deployment has them."""
    disk = Disk()
    seed = bytes(32)
    storage = FakeLogStorage(disk, None)
    recorder = Recorder(
        storage=storage,
        topic=FakeRecordedTopic(list(records)),
        open_log=lambda log: LogFiles(storage, log, Signer(f"linkmesh.local/audit/{log}", seed)),
        keys=FakeAccountKeys(Database(), None),
        index=FakeEntryIndex(Database(), None),
        set_condition=lambda met, why_not="": None,
        accept_gaps=False,
    )

    async def record_all() -> None:
        await recorder.assigned([TopicPartition("links-events", 0)])
        await recorder.handle(list(records))

    asyncio.run(record_all())
    for (log, name), content in disk.files.items():
        path = state / "data" / "audit" / log / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    key = state / "secrets" / "audit-signing-key"
    key.parent.mkdir(exist_ok=True)
    key.write_text(seed.hex())


def test_an_audit_log_has_one_leaf_for_each_record_and_proves_it(tmp_path: Path) -> None:
    """A record without a leaf, a leaf without a record, and a file that somebody changed are found."""
    records = [record(0, _EVENTS[0]), record(1, _EVENTS[1])]
    recorded(tmp_path, records)

    assert check_audit(tmp_path, records) == []
    assert check_audit(tmp_path, [*records, record(2, _EVENTS[0])])
    assert check_audit(tmp_path, records[:1])
    assert check_audit(tmp_path, [replace(one, partition=1) for one in records])
    (entries,) = (path for path in tmp_path.rglob("entries/**/*") if path.is_file())
    entries.write_bytes(entries.read_bytes()[:-1] + b"!")
    assert check_audit(tmp_path, records)
