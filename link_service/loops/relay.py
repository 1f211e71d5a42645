"""The relay: what stands in the outbox goes to `links-events` in order, at least once, and then leaves it [O1].

One relay leads by a lease of 3 s. It reads the head of all streams, sends what it read in order, and trims exactly what
the broker acknowledged; whatever was not is still the head of its stream, so that reading again is the whole of its
recovery. A relay that was paused may send again what its successor had sent: a late repeat, which consumers know [O2].
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from chassis.kafka.codec import event_headers
from chassis.kafka.producer import MESSAGE_BYTES_MAX, Sender
from chassis.kafka.record import Message
from contracts.link_codec import UndecodableError
from contracts.outbox_entries import OutboxEntry, decode_outbox_entry
from contracts.topics import LINKS_EVENTS
from link_service.ports import Outbox, Position, QueuedEntry

logger = logging.getLogger(__name__)
EVENT_SOURCE = "link_service"  # ce_source
_ENTRY_BYTES_MAX = MESSAGE_BYTES_MAX - 4096  # what Kafka takes, less the headers; requests are far below
_AGAIN = Backoff(first_s=0.05, cap_s=1.0)  # after a failure: Kafka's return is noticed within a second

ENTRIES = Gauge("outbox_entries", "Events that are not known to be in Kafka.")
BYTES = Gauge("outbox_bytes", "Memory that the outbox takes in Redis, by Redis' own estimate.")
AGE_SECONDS = Gauge("outbox_age_seconds", "Age of the oldest event in the outbox, by Redis' clock; 0 when empty.")
LEADING = Gauge("relay_leading", "1 while this process is the relay's leader.")
RELAYED = Counter("relayed_events", "Events that the broker acknowledged.")
FAILURES = Counter("relay_failures", "Batches of which the broker did not acknowledge all.")
SET_ASIDE = Counter("relay_entries_set_aside", "Outbox entries that could not be read; a person must look.")


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """The knobs of the relay."""

    lease_ms: int = 3000  # as long as nobody relays after a leader was killed
    renew_s: float = 1.0  # two renewals may fail before the lease is lost
    collect_s: float = 0.04  # while events come in crowds: a batch costs a millisecond of CPU, whatever is in it
    crowd: tuple[int, int] = (4, 200)  # sizes of batches behind which to collect; fewer: in no hurry; more: a backlog
    read_wait_s: float = 0.5  # how long a read may block; an event ends it at once
    send_timeout_s: float = 5.0
    again: Backoff = _AGAIN
    measure_s: float = 1.0


class Relay:
    """A component: leads when it can, measures the outbox always. `candidate` must be this process' alone."""

    def __init__(
        self, *, outbox: Outbox, sender: Sender, clock: Clock, candidate: str, policy: RelayPolicy | None = None
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._candidate = candidate
        self._policy = policy or RelayPolicy()
        self._leader_until = 0.0  # monotonic; nobody else can lead before

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until stop; a batch in flight is finished, the lease given back."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure(stop), name="measure outbox")
            while not stop.is_set():
                if await self._renew():
                    await self._lead(stop)
                else:
                    await sleep_until_stop(stop, self._policy.renew_s)
            await self._resign()

    async def _lead(self, stop: asyncio.Event) -> None:
        """Relays while the lease lasts."""
        logger.info("leading the relay")
        LEADING.set(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                relaying = tasks.create_task(self._relay(stop), name="relay")
                keeping = tasks.create_task(self._keep(stop), name="keep the relay's lease")
                await asyncio.wait([relaying, keeping], return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set() and not relaying.done():
                    await asyncio.wait([relaying])  # its batch ends within send_timeout_s
                relaying.cancel()
                keeping.cancel()
        finally:
            LEADING.set(0)

    async def _keep(self, stop: asyncio.Event) -> None:
        """Renews the lease; returns when it is lost, or has run out unrenewed."""
        while not await sleep_until_stop(stop, self._policy.renew_s):
            if not await self._renew() and self._clock.monotonic() >= self._leader_until:
                logger.warning("the relay's lease is lost")
                return

    async def _renew(self) -> bool:
        """Whether the lease is ours, as Redis says now. Sets until when it surely is."""
        asked_at = self._clock.monotonic()
        try:
            leading = await self._outbox.lead(self._candidate, lease_ms=self._policy.lease_ms)
        except Unavailable:
            return False
        self._leader_until = asked_at + self._policy.lease_ms / 1000 if leading else 0.0
        return leading

    async def _relay(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            try:
                entries = await self._outbox.read(wait_s=self._policy.read_wait_s)
                passed = await self._pass_on(entries)
            except Unavailable:
                entries, passed = [], False
            failures = 0 if passed else failures + 1
            least, most = self._policy.crowd
            if failures:
                await sleep_until_stop(stop, self._policy.again.delay_s(failures - 1))
            elif least <= len(entries) < most:
                await sleep_until_stop(stop, self._policy.collect_s)

    async def _pass_on(self, entries: Sequence[QueuedEntry]) -> bool:
        """Sends and trims; whether all of it was acknowledged."""
        messages: list[Message | None] = []
        for entry in entries:
            message = _message_of(entry)
            if message is None:
                logger.error("an outbox entry cannot be read and is set aside (bucket %d)", entry.bucket)
                await self._outbox.set_aside(entry)
                SET_ASIDE.inc()
            messages.append(message)
        to_send = [message for message in messages if message is not None]
        acknowledged = (
            await self._sender.send_in_order(to_send, timeout_s=self._policy.send_timeout_s) if to_send else 0
        )
        RELAYED.inc(acknowledged)
        await self._outbox.trim(finished_through(entries, messages, acknowledged))
        if acknowledged < len(to_send):
            FAILURES.inc()
            return False
        return True

    async def _resign(self) -> None:
        try:
            await self._outbox.resign(self._candidate)
        except Unavailable:
            logger.info("the relay's lease is left to run out")

    async def _measure(self, stop: asyncio.Event) -> None:
        while True:
            try:
                depth = await self._outbox.depth()
            except Unavailable:
                pass  # the last figures stand; that Redis is away shows elsewhere
            else:
                ENTRIES.set(depth.entries)
                BYTES.set(depth.size_bytes)
                AGE_SECONDS.set(depth.oldest_age_s)
            if await sleep_until_stop(stop, self._policy.measure_s):
                return


def finished_through(
    entries: Sequence[QueuedEntry], messages: Sequence[Message | None], acknowledged: int
) -> Mapping[int, Position]:
    """How far each bucket may be trimmed, when the first `acknowledged` of the messages are in Kafka.

    Entries without a message are set aside and count as finished, unless they stand behind an unacknowledged one.
    """
    through: dict[int, Position] = {}
    for entry, message in zip(entries, messages, strict=True):
        if message is not None:
            if acknowledged == 0:
                break
            acknowledged -= 1
        through[entry.bucket] = entry.position
    return through


def record_of(entry: OutboxEntry) -> Message:
    """The Kafka record of an event."""
    headers = event_headers(
        event_id=entry.event_id,
        event_type=entry.event_type,
        source=EVENT_SOURCE,
        time=entry.at,
        subject=entry.key,
        traceparent=entry.traceparent,
    )
    return Message(LINKS_EVENTS.name, entry.key.encode(), entry.value, headers)


def _message_of(entry: QueuedEntry) -> Message | None:
    if len(entry.data) > _ENTRY_BYTES_MAX:
        return None
    try:
        return record_of(decode_outbox_entry(entry.data))
    except UndecodableError:
        return None
