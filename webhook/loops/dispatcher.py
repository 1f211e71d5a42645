"""The dispatcher: makes the attempts, first ones from memory, later ones from the index of due deliveries [H2].

Every attempt is made under a claim with a lease. Whoever dies, hangs or cannot store an outcome loses its claim when
the lease is over, and the delivery is made again: at least once, with the same webhook-id.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import Counter, Gauge, Histogram

from chassis.backoff import Backoff
from chassis.clock import Clock, sleep_until_stop
from chassis.errors import Unavailable
from chassis.kafka.codec import TRACEPARENT
from chassis.telemetry import current_traceparent, span
from webhook.domain.deliveries import (
    DUE_BUCKETS,
    Answer,
    Delivery,
    DeliveryState,
    after_attempt,
    disables,
    given_back,
    may_begin,
    without_attempt,
)
from webhook.domain.endpoints import Account, Endpoint, EndpointId, disable_endpoint
from webhook.domain.lanes import LaneLimits, Lanes
from webhook.domain.signature import signed_headers
from webhook.ports import Cursor, DeliveryStore, EndpointStore, Sender

DELIVERIES = Counter("webhook_deliveries_total", "Claims of deliveries by what became of them", ["outcome"])
ATTEMPT_DURATION = Histogram(
    "webhook_attempt_duration_seconds",
    "Time from the look-up of a receiver's name to the end of its answer",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
DUE = Gauge("webhook_due", "Deliveries whose time had come when the index was last read to its end")

_PAGE = 100  # due deliveries of one look
_PAGES_MAX = 5  # of one bucket in one sweep; the next sweep goes on behind them
_SETTLE_TRIES = 4
_GIVE_BACK_S = 2.0  # for what still waits in memory when the process stops; the lease takes care of the rest
_BACKOFF = Backoff(first_s=0.2, cap_s=5.0)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPolicy:
    """The knobs of a dispatcher."""

    lanes: LaneLimits
    attempt_timeout_s: float
    lease_s: float
    sweep_interval_s: float
    drain_s: float
    endpoint_age_s: float = 1.0  # how long ago an endpoint may have been read; a deleted one hears no more after that


@dataclass(frozen=True, slots=True)
class _First:
    """A delivery that waits for its first attempt; its endpoint as it was at a moment of the monotonic clock."""

    delivery: Delivery
    endpoint: Endpoint
    read_at: float


@dataclass(slots=True)
class _Pass:
    """How far the passes over the index have come: they go on where they stopped, so no row hides those behind it."""

    after: dict[int, Cursor] = field(default_factory=dict)
    counting: dict[int, int] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)


class Dispatcher:
    """A component, and the FirstAttempts of the fan-out."""

    def __init__(
        self,
        endpoints: EndpointStore,
        deliveries: DeliveryStore,
        sender: Sender,
        *,
        clock: Clock,
        policy: DispatchPolicy,
        new_claim: Callable[[], str],
        chance: Callable[[], float],
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._sender = sender
        self._clock = clock
        self._policy = policy
        self._new_claim = new_claim
        self._chance = chance
        self._lanes: Lanes[_First] = Lanes(policy.lanes)
        self._tasks: asyncio.TaskGroup | None = None  # while attempts may begin
        self._under_way: set[asyncio.Task[None]] = set()
        self._pass = _Pass()

    def has_room(self, endpoint_id: EndpointId) -> bool:
        """Whether a first attempt for this endpoint would be taken now."""
        return self._tasks is not None and self._lanes.has_room(endpoint_id)

    def offer(self, delivery: Delivery, endpoint: Endpoint) -> bool:
        """Takes a delivery that was stored as claimed, and begins with it as soon as there is a slot."""
        if self._tasks is None:
            return False
        is_taken = self._lanes.wait(endpoint.endpoint_id, _First(delivery, endpoint, self._clock.monotonic()))
        self._begin_waiting()
        return is_taken

    async def run(self, stop: asyncio.Event) -> None:
        """Makes attempts until stop is set, then lets those under way end and gives back what waits.

        An attempt that does not end within `drain_s` is abandoned, and made again when its lease is over.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._sweep_until(stop)
            finally:
                self._tasks = None
            await self._give_back()
            if self._under_way:
                _, late = await asyncio.wait(self._under_way, timeout=self._policy.drain_s)
                for attempt in late:
                    attempt.cancel()

    async def _sweep_until(self, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            delay_s = self._policy.sweep_interval_s
            try:
                await self._sweep()
                failures = 0
            except Unavailable as exc:
                if failures == 0:
                    logger.warning("cannot look for due deliveries: %s", exc)
                delay_s = _BACKOFF.delay_s(failures, self._chance)
                failures += 1
            await sleep_until_stop(stop, delay_s)

    async def _sweep(self) -> None:
        """Looks through the buckets of the index and begins with what is due and has a slot."""
        for bucket in range(DUE_BUCKETS):
            for _ in range(_PAGES_MAX):
                if await self._look(bucket):
                    break
        DUE.set(sum(self._pass.counted.values()))

    async def _look(self, bucket: int) -> bool:
        """Takes one page of a bucket; whether it was the last."""
        progress = self._pass
        page = await self._deliveries.due(
            bucket, now=self._clock.now(), after=progress.after.pop(bucket, None), limit=_PAGE
        )
        for delivery in page.deliveries:
            if self._lanes.begin(delivery.endpoint_id):
                self._start(delivery.endpoint_id, functools.partial(self._try_again, delivery))
        seen = progress.counting.pop(bucket, 0) + len(page.deliveries)
        if page.after is None:
            progress.counted[bucket] = seen
            return True
        progress.after[bucket], progress.counting[bucket] = page.after, seen
        return False

    def _begin_waiting(self) -> None:
        while self._tasks is not None and (first := self._lanes.take()) is not None:
            self._start(first.delivery.endpoint_id, functools.partial(self._try_first, first))

    def _start(self, endpoint_id: EndpointId, attempt: Callable[[], Awaitable[None]]) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(self._in_slot(endpoint_id, attempt), name="attempt")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _in_slot(self, endpoint_id: EndpointId, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await attempt()
        except Unavailable as exc:
            DELIVERIES.labels("unsettled").inc()
            logger.warning("a delivery waits for its lease to end: %s", exc)
        finally:
            self._lanes.end(endpoint_id)
            self._begin_waiting()

    async def _try_first(self, first: _First) -> None:
        if not may_begin(first.delivery, now=self._clock.now(), attempt_s=self._policy.attempt_timeout_s):
            DELIVERIES.labels("waited_too_long").inc()  # the index brings it up when the lease is over
            return
        is_fresh = self._clock.monotonic() - first.read_at <= self._policy.endpoint_age_s
        endpoint = first.endpoint if is_fresh else await self._endpoint_of(first.delivery)
        await self._attempt(first.delivery, endpoint)

    async def _try_again(self, due: Delivery) -> None:
        until = self._clock.now() + timedelta(seconds=self._policy.lease_s)
        claimed = await self._deliveries.claim(due, claim=self._new_claim(), until=until)
        if claimed is not None:  # else another instance was faster
            await self._attempt(claimed, await self._endpoint_of(claimed))

    async def _endpoint_of(self, delivery: Delivery) -> Endpoint | None:
        return (await self._account(delivery)).find(delivery.endpoint_id)

    async def _account(self, delivery: Delivery) -> Account:
        return (await self._endpoints.of_accounts([delivery.user_id]))[delivery.user_id]

    async def _attempt(self, delivery: Delivery, endpoint: Endpoint | None) -> None:
        if endpoint is None or not endpoint.enabled:
            why = "The endpoint was deleted." if endpoint is None else "The endpoint is disabled."
            await self._settle(without_attempt(delivery, why), "endpoint_off")
            return
        answer = await self._send(delivery, endpoint)
        if disables(answer):
            await self._disable(delivery)
        after = after_attempt(delivery, answer, now=self._clock.now(), chance=self._chance)
        await self._settle(after, "retry" if after.state is DeliveryState.PENDING else after.state.value)

    async def _send(self, delivery: Delivery, endpoint: Endpoint) -> Answer:
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.request.resend_count": delivery.attempts,
            "linkmesh.endpoint_id": endpoint.endpoint_id,
            "peer.service": "subscriber",
        }
        now = self._clock.now()
        headers = signed_headers(endpoint.secret, message_id=delivery.event_id, at=now, body=delivery.body)
        with (
            ATTEMPT_DURATION.time(),
            span("POST webhook", SpanKind.CLIENT, parent=delivery.traceparent, attributes=attributes) as current,
        ):
            if traceparent := current_traceparent():
                headers[TRACEPARENT] = traceparent
            answer = await self._sender.send(endpoint.url, headers, delivery.body)
            current.set_attribute("http.response.status_code", answer.status)
            if not answer.is_success:
                current.set_status(StatusCode.ERROR)
                current.set_attribute("error.type", str(answer.status or "no_answer"))
            return answer

    async def _disable(self, delivery: Delivery) -> None:
        """Disables the endpoint before the outcome is stored: if this fails, the attempt is made again and says so."""
        for _ in range(_SETTLE_TRIES):
            changed = disable_endpoint(await self._account(delivery), delivery.endpoint_id, "It answered 410 Gone.")
            if changed is None or await self._endpoints.save(changed):
                return
        raise Unavailable("unavailable", "The account's endpoints are being changed.")

    async def _settle(self, after: Delivery, outcome: str) -> None:
        """Stores an outcome, patiently: what is lost here is delivered twice."""
        for attempt in range(_SETTLE_TRIES):
            try:
                is_ours = await self._deliveries.settle(after)
            except Unavailable:
                if attempt == _SETTLE_TRIES - 1:
                    raise
                await self._clock.sleep(_BACKOFF.delay_s(attempt, self._chance))
            else:
                DELIVERIES.labels(outcome if is_ours else "claim_lost").inc()
                return

    async def _give_back(self) -> None:
        """Makes what waits in memory due at once, for another instance or the next start."""
        try:
            async with asyncio.timeout(_GIVE_BACK_S):
                for first in self._lanes.drain():
                    await self._deliveries.settle(given_back(first.delivery, now=self._clock.now()))
        except (TimeoutError, Unavailable):
            logger.warning("deliveries that waited in memory are made when their lease is over")
