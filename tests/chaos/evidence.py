"""What the system holds when it has come to rest: rows, topic, dead letters, audit logs, deliveries. Read past every
process, and each held against the others."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audit.domain.checkpoint import Signer
from audit.domain.tiles import CorruptError, log_name
from audit.domain.verify import Read, verify
from audit.handlers.leaf_codec import decode_leaf
from chassis.config import read_key
from chassis.dynamodb import open_dynamodb
from chassis.kafka.admin import Admin
from chassis.kafka.record import Record, TopicPartition
from contracts.link import Link, LinkEvent
from contracts.link_codec import UndecodableError, decode_event
from contracts.link_rows import event_from_row, link_from_row
from contracts.tables import LINKS, META
from contracts.topics import LINKS_EVENTS, LINKS_EVENTS_DLQ
from tests.chaos.judge import Rows

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef
_READ_TIMEOUT_S = 60.0
_ORIGIN = "linkmesh.local"


async def read_rows(endpoint: str, users: Sequence[str]) -> Rows:
    """All links of these accounts, and what belongs to nobody of them as far as it has their codes."""
    events: dict[str, list[LinkEvent]] = defaultdict(list)
    links: dict[str, Link | None] = {}
    async with open_dynamodb(endpoint, timeout_s=_READ_TIMEOUT_S) as client:
        async for page in client.get_paginator("scan").paginate(TableName=LINKS.name, ConsistentRead=True):
            for row in page["Items"]:
                _take(row, events, links)
    for found in events.values():
        found.sort(key=lambda event: event.version)
    kept = {code for code, found in events.items() if found[0].link.user_id in users}
    kept |= {code for code, link in links.items() if link is not None and link.user_id in users}
    return Rows({code: events[code] for code in kept if code in events}, {code: links.get(code) for code in kept})


async def read_topic(kafka: str, topic: str, partitions: int) -> list[Record]:
    """Every record of a topic, each partition in order."""
    async with Admin(kafka, client_id="chaos-evidence", timeout_s=_READ_TIMEOUT_S) as admin:
        starts = {TopicPartition(topic, number): 0 for number in range(partitions)}
        return sorted(await admin.records_behind(starts), key=lambda record: (record.partition, record.offset))


def check_topic(records: Sequence[Record], rows: Rows, poison: Sequence[str]) -> list[str]:
    """First occurrences stand in the order of versions (O2), and topic and event rows tell the same (O1, W1)."""
    problems: list[str] = []
    last: dict[str, int] = defaultdict(int)
    known: dict[str, str] = {}
    for record in records:
        key = record.key.decode()
        if key in poison:
            continue
        try:
            event = decode_event(record.header("ce_type") or "", record.value)
        except UndecodableError as exc:
            problems.append(f"{record.partition}/{record.offset} of {key}: {exc}")
            continue
        if event.event_id in known:
            continue  # a late repeat, which O2 allows
        known[event.event_id] = key
        if event.version != last[key] + 1:
            problems.append(f"{key}: v{event.version} stands first behind v{last[key]}")
        last[key] = event.version
    in_rows = {event.event_id: code for code, events in rows.events.items() for event in events}
    missing = [f"{code} {event_id}" for event_id, code in in_rows.items() if event_id not in known]
    unwritten = [f"{known[event_id]} {event_id}" for event_id in known if event_id not in in_rows]
    problems += [f"in the table but not in the topic: {name}" for name in missing]
    return problems + [
        f"in the topic but not in the table: {name}" for name in unwritten if name.split()[0] in rows.events
    ]


def check_dead_letters(letters: Sequence[Record], poison: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Nothing but poison is dead, and each poison record is, once for each group that decodes."""
    problems = []
    buried: dict[tuple[str, str], int] = defaultdict(int)
    for letter in letters:
        key, group = letter.key.decode(), letter.header("dlq_group") or ""
        if key in poison:
            buried[key, group] += 1
        else:
            problems.append(f"{group} gave up on {key}: {letter.header('dlq_reason')} {letter.header('dlq_detail')}")
    return problems + [
        f"poison {key}: no dead letter of {group}" for key in poison for group in groups if not buried[key, group]
    ]


def check_audit(state: Path, records: Sequence[Record]) -> list[str]:
    """Each partition has a log that its signature and its own hashes prove, with one leaf for each record."""
    problems = []
    seed = read_key(state / "secrets" / "audit-signing-key", length=32)
    offsets: dict[int, list[int]] = defaultdict(list)
    for record in records:
        offsets[record.partition].append(record.offset)
    for partition, wanted in sorted(offsets.items()):
        log = log_name(LINKS_EVENTS.name, partition)
        verifier = Signer(f"{_ORIGIN}/audit/{log}", seed).verifier
        try:
            proved = verify(_reader(state / "data" / "audit" / log), verifier)
        except CorruptError as exc:
            problems.append(f"audit log {partition}: {exc}")
            continue
        recorded = [decode_leaf(entry).offset for entry in proved.entries]
        if recorded != wanted:
            problems.append(f"audit log {partition}: {len(recorded)} leaves for {len(wanted)} records")
    return problems


def check_deliveries(
    told: Mapping[str, Mapping[str, Sequence[Mapping[str, object]]]], owners: Mapping[str, str], rows: Rows
) -> list[str]:
    """Each endpoint was told of every event of its account, as it was, and of nobody else's."""
    problems = []
    events: dict[str, LinkEvent] = {event.event_id: event for found in rows.events.values() for event in found}
    for endpoint, user in owners.items():
        got = told.get(endpoint, {})
        wanted = {event_id for event_id, event in events.items() if event.link.user_id == user}
        problems += [f"{endpoint} was never told of {events[event_id].link.short_code} v{events[event_id].version}"
                     for event_id in sorted(wanted - got.keys())]  # fmt: skip
        for event_id, bodies in got.items():
            event = events.get(event_id)
            if event is None:
                problems.append(f"{endpoint} was told of {event_id}, which is in no table")
            elif event.link.user_id != user:
                problems.append(f"{endpoint} of {user} was told of {event.link.user_id}'s {event.link.short_code}")
            elif any(body["type"] != event.type.value or _said(body) != _is(event) for body in bodies):
                problems.append(f"{endpoint} was told of {event_id}, but something else")
    return problems


def _reader(folder: Path) -> Read:
    return lambda path: (folder / path).read_bytes() if (folder / path).is_file() else None


def letters_topic() -> tuple[str, int]:
    """Name and partitions of the dead letters of links."""
    return LINKS_EVENTS_DLQ.name, LINKS_EVENTS_DLQ.partitions


def _said(body: Mapping[str, object]) -> tuple[object, object, object]:
    data = body["data"]
    assert isinstance(data, dict)
    return data["short_code"], data["version"], data["link"]["long_url"]


def _is(event: LinkEvent) -> tuple[object, object, object]:
    return event.link.short_code, event.version, event.link.long_url


def _take(
    row: "Mapping[str, AttributeValueTypeDef]", events: dict[str, list[LinkEvent]], links: dict[str, Link | None]
) -> None:
    code = row["pk"]["S"].removeprefix("L#")
    if row["sk"]["S"] == META:
        links[code] = link_from_row(row)
    else:
        events[code].append(event_from_row(row))
