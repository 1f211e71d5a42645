"""What analytics' CheckpointStore promises, on the fake and on a real DynamoDB engine."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from analytics.adapters.checkpoints_dynamodb import DynamoDBCheckpoints
from analytics.domain.checkpoints import Checkpoint, next_epoch
from analytics.domain.clicks import Origin
from analytics.domain.ledger import Accounts
from analytics.domain.sequences import Spool
from analytics.ports import CheckpointStore
from chassis.dynamodb import open_dynamodb
from linkmesh.local.engines import DynamoDBEngine
from tests.fakes.analytics_clicks import SPOOL, T0_MS
from tests.fakes.analytics_ports import FakeCheckpoints

Check = Callable[[CheckpointStore], Coroutine[None, None, None]]
_partitions = itertools.count(10_000)  # that no other test has in the shared table


@pytest.fixture(params=["fake", "dynamodb"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check against one kind of store."""
    if request.param == "fake":
        return lambda check: asyncio.run(check(FakeCheckpoints()))
    engine: DynamoDBEngine = request.getfixturevalue("dynamodb")
    return lambda check: asyncio.run(_on_dynamodb(engine.endpoint, check))


async def _on_dynamodb(endpoint: str, check: Check) -> None:
    async with open_dynamodb(endpoint) as client:
        await check(DynamoDBCheckpoints(client, timeout_s=5))


def some_checkpoint(offset: int = 5) -> Checkpoint:
    """A checkpoint of a partition of its own, with two spools."""
    accounts = Accounts(
        {SPOOL + "1": Spool(9, 4, 7, ((2, 4), (6, 7)), 2, 12, 3, closed=True), SPOOL + "2": Spool(1, 1)},
        frozenset({Origin(3, T0_MS), Origin(500, T0_MS - 1)}),
        forgotten_until_ms=T0_MS - 5,
        loose=6,
    )
    return Checkpoint(next(_partitions), offset=offset, time_ms=T0_MS + 1, accounts=accounts)


@pytest.mark.rule("A3", "A4")
def test_a_checkpoint_comes_back_whole(run: Callable[[Check], None]) -> None:
    """Load returns what was saved, all accounts included, and leaves out partitions that have none."""

    async def check(store: CheckpointStore) -> None:
        first, second, none = some_checkpoint(), some_checkpoint(), some_checkpoint()

        assert await store.save(first)
        assert await store.save(second)

        found = await store.load([first.partition, second.partition, none.partition])
        assert found == {first.partition: first, second.partition: second}

    run(check)


@pytest.mark.rule("A4")
@pytest.mark.parametrize(("offset", "expected"), [(6, True), (5, False), (4, False)])
def test_a_checkpoint_never_goes_back(run: Callable[[Check], None], offset: int, *, expected: bool) -> None:
    """A paused owner that wakes up late cannot put its older position over a newer one."""

    async def check(store: CheckpointStore) -> None:
        stored = some_checkpoint(offset=5)
        offered = replace(stored, offset=offset, accounts=Accounts())
        await store.save(stored)

        assert await store.save(offered) is expected

        assert await store.load([stored.partition]) == {stored.partition: offered if expected else stored}

    run(check)


@pytest.mark.rule("A8")
def test_a_new_epoch_is_gone_on_from(run: Callable[[Check], None]) -> None:
    """The first checkpoint of a new epoch replaces a greater offset of the old one, and keeps the sequences."""

    async def check(store: CheckpointStore) -> None:
        old = some_checkpoint(offset=500)
        await store.save(old)

        begun = await store.begin_epoch(next_epoch(old))

        assert (begun.epoch, begun.offset, begun.accounts) == (2, 0, old.accounts)
        assert await store.load([old.partition]) == {old.partition: begun}
        assert await store.save(replace(begun, offset=1))
        assert not await store.save(replace(old, offset=400))

    run(check)


@pytest.mark.rule("A8")
def test_the_faster_owner_begins_the_epoch(run: Callable[[Check], None]) -> None:
    """An owner that finds the epoch begun goes on from where the other one is, not from the start."""

    async def check(store: CheckpointStore) -> None:
        old = some_checkpoint(offset=500)
        await store.save(old)
        ahead = replace(await store.begin_epoch(next_epoch(old)), offset=40)
        await store.save(ahead)

        assert await store.begin_epoch(next_epoch(old)) == ahead

    run(check)
