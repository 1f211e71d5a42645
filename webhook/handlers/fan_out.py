"""A batch of link events becomes delivery rows, one conditional put each, and nothing else [H1]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from prometheus_client import Counter

from chassis.clock import Clock
from chassis.kafka.codec import TRACEPARENT
from chassis.kafka.record import Done, Outcome, Record, Rejected
from contracts.link import LinkEvent
from contracts.link_codec import UndecodableError, decode_event
from webhook.domain.deliveries import Delivery, recipients
from webhook.domain.endpoints import Endpoint
from webhook.domain.payload import body_of
from webhook.ports import DeliveryStore, EndpointStore, FirstAttempts

FANNED_OUT = Counter("webhook_deliveries_stored_total", "Deliveries that were stored, one for an event and an endpoint")


@dataclass(frozen=True, slots=True)
class _Told:
    event: LinkEvent
    record: Record

    @property
    def recorded_at(self) -> datetime:
        return datetime.fromtimestamp(self.record.timestamp_ms / 1000, UTC)


class FanOut:
    """Handles batches of links-events. May be repeated: a row that is there stays as it is."""

    def __init__(
        self,
        endpoints: EndpointStore,
        deliveries: DeliveryStore,
        first_attempts: FirstAttempts,
        *,
        clock: Clock,
        new_claim: Callable[[], str],
        lease_s: float,
        public_url: str,
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._first_attempts = first_attempts
        self._clock = clock
        self._new_claim = new_claim
        self._lease = timedelta(seconds=lease_s)
        self._public_url = public_url

    async def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """One outcome a record, in order.

        Raises:
            Unavailable: the database is away; nothing may be committed, everything may be repeated.
        """
        decoded = [_decode(record) for record in records]
        told = [item for item in decoded if isinstance(item, _Told)]
        owners = {item.event.link.user_id for item in told}
        accounts = await self._endpoints.of_accounts(owners)
        now = self._clock.now()
        wanted = [
            (self._delivery(item, endpoint, now), endpoint)
            for item in told
            for endpoint in recipients(
                item.event, accounts[item.event.link.user_id].endpoints, recorded_at=item.recorded_at, now=now
            )
        ]
        if wanted:
            await self._store(wanted)
        return [item if isinstance(item, Rejected) else Done() for item in decoded]

    def _delivery(self, told: _Told, endpoint: Endpoint, now: datetime) -> Delivery:
        return Delivery(
            endpoint_id=endpoint.endpoint_id,
            user_id=endpoint.user_id,
            event_id=told.event.event_id,
            event_type=told.event.type,
            short_code=told.event.link.short_code,
            body=body_of(told.event, public_url=self._public_url),
            traceparent=told.record.header(TRACEPARENT) or "",
            created_at=now,
            next_at=now,
        )

    async def _store(self, wanted: Sequence[tuple[Delivery, Endpoint]]) -> None:
        """Stores the deliveries; those that find room in memory are stored as claimed, and handed over."""
        rows = [self._claimed(delivery) for delivery, _ in wanted]
        added = await self._deliveries.add(rows)
        for delivery, (_, endpoint), is_new in zip(rows, wanted, added, strict=True):
            if is_new:
                FANNED_OUT.inc()
            if is_new and delivery.claim:
                self._first_attempts.offer(delivery, endpoint)

    def _claimed(self, delivery: Delivery) -> Delivery:
        if not self._first_attempts.has_room(delivery.endpoint_id):
            return delivery  # due at once, for whoever looks into the index next
        return replace(delivery, claim=self._new_claim(), next_at=delivery.created_at + self._lease)


def _decode(record: Record) -> _Told | Rejected:
    try:
        return _Told(decode_event(record.header("ce_type") or "", record.value), record)
    except UndecodableError as exc:
        return Rejected("undecodable", str(exc))
