"""The webhook process on a real broker, a real DynamoDB and a real receiver."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from chassis.clock import SystemClock, uuid7
from contracts.link import EventId, LinkEvent, LinkState, UserId
from linkmesh.local.engines import DynamoDBEngine, KafkaEngine
from linkmesh.local.otlp_bridge import Collector, OtlpReceiver
from linkmesh.local.ports import free_port
from linkmesh.local.storage import ensure_topics
from shortener.webhook.v1 import webhook_service_pb2 as pb
from tests.fakes.link_events import event_of, make_link
from tests.integration.webhook.harness import Receiver, WebhookProcess, publish, receiving, until


@dataclass(frozen=True)
class World:
    """What a test has: a process, a receiver, and an account of its own."""

    process: WebhookProcess
    receiver: Receiver
    bootstrap: str
    user_id: str

    def created(self, code: str) -> LinkEvent:
        """The creation of a link of this account, just now."""
        now = SystemClock().now()
        link = replace(
            make_link(code, user_id=self.user_id), created_at=now, updated_at=now, event_id=EventId(uuid7(now))
        )
        return event_of(link)

    def deleted(self, event: LinkEvent) -> LinkEvent:
        """The deletion of a link, just after."""
        at = event.at + timedelta(milliseconds=1)
        link = replace(
            event.link,
            version=event.version + 1,
            state=LinkState.DELETED,
            updated_at=at,
            deleted_at=at,
            event_id=EventId(uuid7(at)),
        )
        return event_of(link)

    async def publish(self, *events: LinkEvent, traceparent: str | None = None) -> None:
        """Puts events on links-events."""
        await publish(self.bootstrap, events, traceparent=traceparent)


_WORDS = ("http://", "127.0.0.1", "whsec_", "/traced")  # what no attribute may have
Check = Callable[[World], Coroutine[None, None, None]]


@pytest.fixture
def run(
    request: pytest.FixtureRequest, tmp_path: Path, kafka: KafkaEngine, dynamodb: DynamoDBEngine
) -> Callable[..., None]:
    """Runs a check in a world of its own; `settings` are variables of the process."""
    asyncio.run(ensure_topics(kafka.bootstrap))
    user_id = UserId(request.node.name)

    @asynccontextmanager
    async def world(settings: dict[str, str]) -> AsyncIterator[World]:
        process = WebhookProcess(tmp_path, kafka=kafka.bootstrap, dynamodb=dynamodb.endpoint, settings=settings)
        async with receiving() as receiver:
            try:
                await process.start()
                yield World(process, receiver, kafka.bootstrap, user_id)
                receiver.hanging.set()
                assert await process.stop() == 0
            finally:
                await process.stop()

    async def scenario(check: Check, settings: dict[str, str]) -> None:
        async with world(settings) as it:
            await check(it)

    def runner(check: Check, **settings: str) -> None:
        asyncio.run(scenario(check, settings))

    return runner


@pytest.mark.rule("H1")
def test_created_and_deleted_arrive_with_a_signature_that_others_accept(run: Callable[..., None]) -> None:
    """A creation and a deletion are delivered, verify with the standard's own library, and continue the trace."""
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"

    async def check(world: World) -> None:
        made = await world.process.create_endpoint(world.user_id, world.receiver.url("/told"))
        created = world.created("told-1")

        await world.publish(created, world.deleted(created), traceparent=traceparent)
        await until(lambda: len(world.receiver.on("/told")) == 2)

        by_type = {}
        for request in world.receiver.on("/told"):
            payload = Webhook(made.secret).verify(request.body, dict(request.headers))
            assert request.headers["webhook-id"] == payload["data"]["event_id"]
            assert request.headers["traceparent"].split("-")[1] == "ab" * 16
            by_type[payload["type"]] = payload["data"]
        assert set(by_type) == {"link.created", "link.deleted"}
        assert by_type["link.created"]["link"]["short_url"] == "http://127.0.0.1:8080/told-1"
        assert by_type["link.deleted"]["link"]["state"] == "deleted"
        assert by_type["link.deleted"]["version"] == 2

    run(check)


def test_the_request_is_a_span_of_the_events_trace_and_names_no_url(run: Callable[..., None]) -> None:
    """process → POST webhook, both in the trace that came with the record; attributes name the endpoint, not where."""
    traceparent = f"00-{'12' * 16}-{'34' * 8}-01"
    collector, port, stop = Collector(), free_port(), asyncio.Event()

    async def check(world: World) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(OtlpReceiver(collector, port=port).run(stop))
            made = await world.process.create_endpoint(world.user_id, world.receiver.url("/traced"))
            await world.publish(world.created("traced"), traceparent=traceparent)
            await until(lambda: {"CLIENT", "CONSUMER"} <= {span.kind for span in collector.trace("12" * 16)})
            stop.set()

        spans = {span.kind: span for span in collector.trace("12" * 16)}
        sent, request = spans["CLIENT"], world.receiver.on("/traced")[0]
        assert (sent.name, sent.service) == ("POST webhook", "webhook")
        assert sent.parent_id == spans["CONSUMER"].span_id
        assert request.headers["traceparent"].split("-")[2] == sent.span_id
        assert sent.attributes["linkmesh.endpoint_id"] == made.endpoint.endpoint_id
        told = " ".join(value for span in spans.values() for value in span.attributes.values())
        assert [word for word in _WORDS if word in told] == []

    run(check, LINKMESH_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")


@pytest.mark.rule("H2")
def test_a_failure_is_stored_and_tried_again_after_five_seconds(run: Callable[..., None]) -> None:
    """An answer of 500 makes a stored retry, due in 5 s ± 20 %, that is made and settles the delivery."""

    async def check(world: World) -> None:
        world.receiver.answers["/fails-once"] = lambda before: 500 if before == 0 else 200
        made = await world.process.create_endpoint(world.user_id, world.receiver.url("/fails-once"))
        loop = asyncio.get_running_loop()

        async def state() -> pb.Delivery | None:
            found = await world.process.deliveries(world.user_id, made.endpoint.endpoint_id)
            return found[0] if found else None

        async def failed_once() -> bool:
            found = await state()
            return found is not None and found.attempts == 1

        await world.publish(world.created("retried"))
        await until(failed_once)
        first_at = loop.time()
        stored = await state()
        assert stored is not None
        assert (stored.state, stored.last_status) == (pb.DELIVERY_STATE_PENDING, 500)
        assert stored.HasField("next_attempt_at")

        await until(lambda: len(world.receiver.on("/fails-once")) == 2)
        assert 3 < loop.time() - first_at < 9

        async def delivered() -> bool:
            found = await state()
            return found is not None and found.state == pb.DELIVERY_STATE_DELIVERED and found.attempts == 2

        await until(delivered)
        first, second = world.receiver.on("/fails-once")
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body

    run(check)


@pytest.mark.rule("H2", "P1")
def test_kill_between_put_and_delivery_loses_nothing(run: Callable[..., None]) -> None:
    """A process killed after the rows were put and before they were delivered: the next one delivers them all."""

    async def check(world: World) -> None:
        path = "/hang-until-killed"
        made = await world.process.create_endpoint(world.user_id, world.receiver.url(path))
        events = [world.created(f"killed-{number}") for number in range(12)]
        await world.publish(*events)
        await until(lambda: len(world.receiver.on(path)) == 5)  # the slots of one endpoint

        async def all_are_stored() -> bool:
            found = await world.process.deliveries(world.user_id, made.endpoint.endpoint_id)
            assert all(item.state == pb.DELIVERY_STATE_PENDING for item in found)
            return len(found) == len(events)

        await until(all_are_stored)
        await world.process.kill()
        world.receiver.hanging.set()
        world.receiver.received.clear()
        await world.process.start()

        wanted = {event.event_id for event in events}
        await until(lambda: wanted == {item.headers["webhook-id"] for item in world.receiver.on(path)}, within_s=30)

    run(check, LINKMESH_LEASE_S="6", LINKMESH_ATTEMPT_TIMEOUT_S="4")


@pytest.mark.rule("H2")
def test_a_hanging_endpoint_does_not_hold_up_another(run: Callable[..., None]) -> None:
    """While one endpoint of the account hangs on every event, the other has each within a second."""

    async def check(world: World) -> None:
        await world.process.create_endpoint(world.user_id, world.receiver.url("/hang"))
        await world.process.create_endpoint(world.user_id, world.receiver.url("/quick"))
        slowest_s = 0.0
        loop = asyncio.get_running_loop()

        for number in range(30):
            published_at = loop.time()
            await world.publish(world.created(f"hang-{number}"))
            await until(lambda: len(world.receiver.on("/quick")) == number + 1)  # noqa: B023 (called in this turn)
            slowest_s = max(slowest_s, loop.time() - published_at)

        assert len(world.receiver.on("/hang")) == 5
        assert slowest_s < 2
        codes = [json.loads(item.body)["data"]["short_code"] for item in world.receiver.on("/quick")]
        assert codes == [f"hang-{number}" for number in range(30)]

    run(check)
