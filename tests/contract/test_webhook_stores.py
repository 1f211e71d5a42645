"""What webhook's EndpointStore and DeliveryStore promise, on the fakes and on a real DynamoDB engine."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from chassis.dynamodb import open_dynamodb
from contracts.link import UserId
from contracts.tables import WEBHOOKS, deliveries_pk
from linkmesh.local.engines import DynamoDBEngine
from tests.fakes.webhook import FakeDeliveryStore, FakeEndpointStore, make_delivery, make_endpoint
from webhook.adapters.deliveries_dynamodb import DynamoDBDeliveryStore
from webhook.adapters.endpoints_dynamodb import DynamoDBEndpointStore
from webhook.domain.deliveries import DUE_BUCKETS, Delivery, DeliveryState
from webhook.domain.endpoints import Account, Endpoint, EndpointId, add_endpoint, remove_endpoint
from webhook.ports import Cursor, DeliveryStore, EndpointStore

AT = datetime(2001, 1, 1, tzinfo=UTC)  # long before what other tests leave in the index
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Subject:
    """The stores under test."""

    endpoints: EndpointStore
    deliveries: DeliveryStore


Check = Callable[[Subject], Coroutine[None, None, None]]


@pytest.fixture(params=["fake", "dynamodb"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check against one kind of stores."""
    if request.param == "fake":
        return lambda check: asyncio.run(check(Subject(FakeEndpointStore(), FakeDeliveryStore())))
    engine: DynamoDBEngine = request.getfixturevalue("dynamodb")
    return lambda check: asyncio.run(_on_dynamodb(engine.endpoint, check))


async def _on_dynamodb(endpoint: str, check: Check) -> None:
    async with open_dynamodb(endpoint) as client:
        await check(Subject(DynamoDBEndpointStore(client, timeout_s=5), DynamoDBDeliveryStore(client, timeout_s=5)))


def an_endpoint() -> Endpoint:
    """An endpoint of an account that no other test has."""
    number = next(_numbers)
    return make_endpoint(f"contract-{number}", user_id=f"webhook-{number}")


async def due_of(store: DeliveryStore, endpoint: Endpoint, now: datetime, *, limit: int = 100) -> list[Delivery]:
    """Everything due for an endpoint, from all buckets and pages."""
    found: list[Delivery] = []
    for bucket in range(DUE_BUCKETS):
        after: Cursor | None = None
        while True:
            page = await store.due(bucket, now=now, after=after, limit=limit)
            found += [item for item in page.deliveries if item.endpoint_id == endpoint.endpoint_id]
            if (after := page.after) is None:
                break
    return found


@pytest.mark.rule("H1")
def test_an_account_is_read_as_it_was_saved_and_changes_once_a_revision(run: Callable[[Check], None]) -> None:
    """A save is seen by the next read; of two changes of one revision only the first is stored."""

    async def check(subject: Subject) -> None:
        endpoint = an_endpoint()
        other = replace(
            endpoint, endpoint_id=EndpointId("other"), enabled=False, disabled_reason="It answered 410 Gone."
        )
        user_id = endpoint.user_id

        empty = (await subject.endpoints.of_accounts([user_id]))[user_id]
        assert empty == Account(user_id)
        first = add_endpoint(empty, endpoint)
        second = add_endpoint(empty, other)
        assert isinstance(first, Account)
        assert isinstance(second, Account)
        assert await subject.endpoints.save(first)
        assert not await subject.endpoints.save(second)
        stored = (await subject.endpoints.of_accounts([user_id, UserId("nobody")]))[user_id]
        assert stored == Account(user_id, (endpoint,), 1)
        both = add_endpoint(stored, other)
        assert isinstance(both, Account)
        assert await subject.endpoints.save(both)
        assert not await subject.endpoints.save(replace(stored, endpoints=()))
        read = (await subject.endpoints.of_accounts([user_id]))[user_id]
        assert read.endpoints == (endpoint, other)
        without = remove_endpoint(read, endpoint.endpoint_id)
        assert isinstance(without, Account)
        assert await subject.endpoints.save(without)
        assert (await subject.endpoints.of_accounts([user_id]))[user_id].endpoints == (other,)
        assert await subject.endpoints.of_accounts([]) == {}

    run(check)


@pytest.mark.rule("H1")
def test_a_row_is_put_once(run: Callable[[Check], None]) -> None:
    """Rows are put where there are none, many in a call; a repetition tells which were there and changes nothing."""

    async def check(subject: Subject) -> None:
        endpoint = an_endpoint()
        rows = [make_delivery(f"e{number:03d}", endpoint, next_at=AT, claim="first") for number in range(60)]

        assert await subject.deliveries.add(rows[:30]) == [True] * 30
        repeated = [replace(row, claim="second", body="other") for row in rows[20:]]
        assert await subject.deliveries.add(repeated) == [False] * 10 + [True] * 30
        newest = await subject.deliveries.newest(endpoint.endpoint_id, before=None, limit=100)
        assert list(newest) == [*reversed(repeated[10:]), *reversed(rows[:30])]
        assert await subject.deliveries.add([]) == []

    run(check)


def test_deliveries_are_listed_by_pages_newest_first(run: Callable[[Check], None]) -> None:
    """A page ends where the next begins; deliveries of other endpoints do not appear."""

    async def check(subject: Subject) -> None:
        endpoint, other = an_endpoint(), an_endpoint()
        await subject.deliveries.add([make_delivery(f"e{number}", endpoint, next_at=AT) for number in range(5)])
        await subject.deliveries.add([make_delivery("e9", other, next_at=AT)])

        first = await subject.deliveries.newest(endpoint.endpoint_id, before=None, limit=3)
        rest = await subject.deliveries.newest(endpoint.endpoint_id, before=first[-1].event_id, limit=3)
        assert [item.event_id for item in (*first, *rest)] == ["e4", "e3", "e2", "e1", "e0"]

    run(check)


def test_due_has_what_is_due_longest_first_page_by_page(run: Callable[[Check], None]) -> None:
    """Only pending rows whose time has come, in order within a bucket, and pages lose nothing."""

    async def check(subject: Subject) -> None:
        endpoint = an_endpoint()
        rows = [
            make_delivery(f"e{number}", endpoint, next_at=AT + timedelta(milliseconds=number)) for number in range(50)
        ]
        later = make_delivery("later", endpoint, next_at=AT + timedelta(seconds=9))
        await subject.deliveries.add([*reversed(rows), later])

        now = AT + timedelta(seconds=8)
        whole = await due_of(subject.deliveries, endpoint, now)
        paged = await due_of(subject.deliveries, endpoint, now, limit=2)

        assert whole == paged
        assert sorted(whole, key=lambda row: row.event_id) == sorted(rows, key=lambda row: row.event_id)
        assert len(await due_of(subject.deliveries, endpoint, now + timedelta(seconds=1))) == 51
        assert await due_of(subject.deliveries, endpoint, AT - timedelta(seconds=1)) == []

    run(check)


@pytest.mark.rule("H2")
def test_a_due_delivery_is_claimed_once_and_comes_up_again_when_the_lease_is_over(
    run: Callable[[Check], None],
) -> None:
    """Of two claims of what was read the first wins; until the lease's end the row is not due, then it is."""

    async def check(subject: Subject) -> None:
        endpoint = an_endpoint()
        row = make_delivery("e", endpoint, next_at=AT)
        await subject.deliveries.add([row])
        until = AT + timedelta(seconds=30)

        claimed = await subject.deliveries.claim(row, claim="one", until=until)
        assert claimed == replace(row, claim="one", next_at=until)
        assert await subject.deliveries.claim(row, claim="two", until=until) is None
        assert await due_of(subject.deliveries, endpoint, until - timedelta(milliseconds=1)) == []
        assert await due_of(subject.deliveries, endpoint, until) == [claimed]
        again = await subject.deliveries.claim(claimed, claim="two", until=until + timedelta(seconds=30))
        assert again is not None
        assert again.claim == "two"
        assert await subject.deliveries.claim(make_delivery("absent", endpoint), claim="one", until=until) is None

    run(check)


@pytest.mark.rule("H2")
def test_an_outcome_is_stored_under_its_own_claim_only(run: Callable[[Check], None]) -> None:
    """The failure of one whose claim was taken over never overwrites the success of the one who took it over."""

    async def check(subject: Subject) -> None:
        endpoint = an_endpoint()
        row = make_delivery("e", endpoint, next_at=AT, claim="zombie")
        await subject.deliveries.add([row])
        claimed = await subject.deliveries.claim(row, claim="ours", until=AT + timedelta(seconds=30))
        assert claimed is not None
        failure = replace(row, attempts=1, last_status=500, last_error="x", next_at=AT + timedelta(seconds=5))
        success = replace(claimed, attempts=1, last_status=204, state=DeliveryState.DELIVERED, next_at=None)

        assert not await subject.deliveries.settle(failure)
        assert await subject.deliveries.settle(success)
        assert not await subject.deliveries.settle(failure)
        assert not await subject.deliveries.settle(success)
        assert not await subject.deliveries.settle(replace(failure, claim=""))
        assert list(await subject.deliveries.newest(endpoint.endpoint_id, before=None, limit=1)) == [
            replace(success, claim="")
        ]
        assert await due_of(subject.deliveries, endpoint, AT + timedelta(days=50)) == []
        assert await subject.deliveries.claim(claimed, claim="late", until=AT) is None

    run(check)


@pytest.mark.rule("H2")
def test_a_failed_attempt_is_due_again_and_free_to_claim(run: Callable[[Check], None]) -> None:
    """An outcome that leaves a delivery pending ends the claim and sets when it is due."""

    async def check(subject: Subject) -> None:
        endpoint = an_endpoint()
        row = make_delivery("e", endpoint, next_at=AT, claim="ours")
        await subject.deliveries.add([row])
        failed = replace(row, attempts=1, last_status=500, last_error="x", next_at=AT + timedelta(seconds=5))

        assert await subject.deliveries.settle(failed)
        assert await due_of(subject.deliveries, endpoint, AT + timedelta(seconds=4)) == []
        [due] = await due_of(subject.deliveries, endpoint, AT + timedelta(seconds=5))
        assert due == replace(failed, claim="")

    run(check)


@pytest.mark.rule("H1")
def test_rows_live_forty_days(dynamodb: DynamoDBEngine) -> None:
    """The table is told when a row may go: 40 days after it was put, in seconds, as its time to live demands."""

    async def check() -> None:
        endpoint = an_endpoint()
        row = make_delivery("e", endpoint)
        async with open_dynamodb(dynamodb.endpoint) as client:
            await DynamoDBDeliveryStore(client, timeout_s=5).add([row])
            key = {"pk": {"S": deliveries_pk(endpoint.endpoint_id)}, "sk": {"S": "e"}}
            stored = await client.get_item(TableName=WEBHOOKS.name, Key=key, ConsistentRead=True)

        assert int(stored["Item"]["ttl"]["N"]) == (row.created_at + timedelta(days=40)).timestamp()

    asyncio.run(check())
