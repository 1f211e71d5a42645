"""A batch of records: decode, store events, move projections, tell Redis. Redelivery repairs a crash anywhere."""

import logging
from collections.abc import Sequence

from prometheus_client import Counter

from chassis.kafka.record import Done, Outcome, Record, Rejected
from contracts.cache import event_id_bytes
from contracts.link import EventId, Link
from contracts.link_codec import UndecodableError, decode_event
from writer.domain import Result, Step, Verdict, first_step, judge_stored_event, next_step
from writer.ports import LinkTable, PersistedMarker, StoredEvent

EVENTS = Counter("writer_events_total", "Link events by what became of them", ["outcome"])
_ROUNDS_MAX = 6  # INSERT, UPDATE, READ, INSERT, UPDATE is the longest way a projection can take
logger = logging.getLogger(__name__)


class EventWriter:
    """Handles batches of links-events with at most one record of any link [W4]."""

    def __init__(self, table: LinkTable, marker: PersistedMarker) -> None:
        self._table = table
        self._marker = marker

    async def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """One outcome a record, in order.

        Raises:
            Unavailable: a store is away; nothing may be committed, everything may be repeated.
        """
        items = [decoded(record) for record in records]
        events = [item for item in items if isinstance(item, StoredEvent)]
        rejected = await self._store(events)
        links = [item.event.link for item in events if item.event.event_id not in rejected]
        rejected |= await self._project(links)
        persisted = [link for link in links if link.event_id not in rejected]
        if persisted:
            await self._marker.persisted(persisted)
        return [
            item if isinstance(item, Rejected) else rejected.get(item.event.event_id, Done())
            for item in items
        ]  # fmt: skip

    async def _store(self, events: Sequence[StoredEvent]) -> dict[EventId, Rejected]:
        """Puts the event rows; returns the verdicts on those that cannot be put, by event id [W1]."""
        if not events:
            return {}
        results = await self._table.insert_events(events)
        met = [item for item, result in zip(events, results, strict=True) if result is Result.EXISTS]
        rejected = {
            item.event.event_id: Rejected("validation", "the table does not take the event")
            for item, result in zip(events, results, strict=True)
            if result is Result.INVALID
        }
        EVENTS.labels("stored").inc(len(events) - len(met) - len(rejected))
        if met:
            rejected |= await self._conflicts(met)
        return rejected

    async def _conflicts(self, met: Sequence[StoredEvent]) -> dict[EventId, Rejected]:
        """Of events whose version has a row: the verdicts on those that are not that row's event [W1]."""
        rejected: dict[EventId, Rejected] = {}
        for item, stored_event_id in zip(met, await self._table.stored_event_ids(met), strict=True):
            event = item.event
            verdict = judge_stored_event(stored_event_id=stored_event_id or "", event_id=event.event_id)
            EVENTS.labels("duplicate" if verdict is Verdict.SAME else "conflict").inc()
            if verdict is Verdict.CONFLICT:
                logger.error("version %d of a link is taken by another event than %s", event.version, event.event_id)
                rejected[event.event_id] = Rejected("conflict", "another event has this version")
        return rejected

    async def _project(self, links: Sequence[Link]) -> dict[EventId, Rejected]:
        """Moves the projections to these versions, where they are not newer [W2]; returns verdicts by event id."""
        rejected: dict[EventId, Rejected] = {}
        pending = [(link, first_step(link.version)) for link in links]
        for _ in range(_ROUNDS_MAX):
            following: list[tuple[Link, Step]] = []
            for step in (Step.INSERT, Step.UPDATE, Step.READ):
                batch = [link for link, wanted in pending if wanted is step]
                for link, result in zip(batch, await self._take(step, batch), strict=True):
                    if result is Result.INVALID:
                        rejected[link.event_id] = Rejected("validation", "the table does not take the link")
                    else:
                        following.append((link, next_step(link.version, step, result)))
            pending = [(link, step) for link, step in following if step is not Step.DONE]
            if not pending:
                return rejected
        raise RuntimeError(f"{len(pending)} projections changed under the writer in every round")

    async def _take(self, step: Step, links: Sequence[Link]) -> list[Result]:
        if not links:
            return []
        match step:
            case Step.INSERT:
                return await self._table.insert_links(links)
            case Step.UPDATE:
                return await self._table.update_links(links)
            case _:
                return await self._table.read_links(links)


def decoded(record: Record) -> StoredEvent | Rejected:
    """The event of a record, or why it is none."""
    try:
        event = decode_event(record.header("ce_type") or "", record.value)
    except UndecodableError as exc:
        return Rejected("undecodable", str(exc))
    if event.link.key.encode() != record.key or event.link.version != event.version:
        return Rejected("validation", "key, version and link of the event do not agree")
    if event.link.event_id != event.event_id:
        return Rejected("validation", "event and link name two events")  # verdicts go by this id
    try:
        event_id_bytes(event.event_id)
    except ValueError as exc:
        return Rejected("validation", str(exc))  # Redis could not be told of it, after the rows were stored
    return StoredEvent(event, record.value)
