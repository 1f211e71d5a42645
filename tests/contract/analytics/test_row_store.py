"""What analytics' RowStore promises, on the fake and on a real DynamoDB engine."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from analytics.adapters.click_rows_dynamodb import DynamoDBRowStore
from analytics.domain.book import Write
from analytics.domain.clicks import Day, Hour, RowId, TopId
from analytics.domain.rows import Applied, Row, RowImage, TopImage, TopRow
from analytics.ports import RowStore
from chassis.dynamodb import open_dynamodb
from chassis.dynamodb_statements import open_statements
from chassis.errors import Unavailable
from contracts.link import LinkKey, UserId
from linkmesh.local.engines import DynamoDBEngine
from linkmesh.local.ports import free_port
from tests.fakes.analytics_ports import FakeRowStore

Check = Callable[[RowStore], Coroutine[None, None, None]]
_numbers = itertools.count(1)
MIDNIGHT = 495_000 - 495_000 % 24


@pytest.fixture(params=["fake", "dynamodb"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check against one kind of store."""
    if request.param == "fake":
        return lambda check: asyncio.run(check(FakeRowStore()))
    engine: DynamoDBEngine = request.getfixturevalue("dynamodb")
    return lambda check: asyncio.run(_on_dynamodb(engine.endpoint, check))


async def _on_dynamodb(endpoint: str, check: Check) -> None:
    async with open_dynamodb(endpoint) as client, open_statements(client, endpoint, timeout_s=5) as statements:
        await check(DynamoDBRowStore(client, statements, timeout_s=5))


def new_key() -> LinkKey:
    """A link that no other test counts; on a domain, whose keys have a slash."""
    return LinkKey(f"go.example.com/row-{next(_numbers)}")


def image_of(key: LinkKey, *, hour: int = MIDNIGHT, partition: int = 3, offset: int = 7, epoch: int = 1) -> RowImage:
    """A row with two people and a bot in it."""
    row = Row(RowId(key, Hour(hour), partition))
    row.add_human(b"a", ("cDE", "r", "bFirefox"))
    row.add_human(b"b", ("c", "rnews.example", "bFirefox"))
    return replace(row.image(), applied=Applied(epoch, offset), bot=1, prefetches=5)


def top_of(user: str, *, day: int = MIDNIGHT // 24, partition: int = 3, offset: int = 7) -> TopImage:
    """A row of an account's top links with two links in it."""
    row = TopRow(TopId(partition, UserId(user), Day(day)))
    for key in ("one", "one", "go.example.com/two"):
        row.add(LinkKey(key))
    return replace(row.image(), applied=Applied(1, offset))


@pytest.mark.rule("A1")
def test_what_was_stored_is_loaded(run: Callable[[Check], None]) -> None:
    """A load gives exactly the rows that exist, field by field; 120 of them are no problem."""

    async def check(store: RowStore) -> None:
        key = new_key()
        images = [image_of(key, hour=MIDNIGHT + number, offset=number + 1) for number in range(110)]
        for start in range(0, 110, 25):
            taken = await store.store([Write(image, stored=False) for image in images[start : start + 25]])
            assert all(taken)

        found = await store.load([image.id for image in images] + [RowId(key, Hour(1), n) for n in range(10)])

        assert found == {image.id: image for image in images}
        assert await store.load([]) == {}
        assert await store.store([]) == []

    run(check)


@pytest.mark.rule("A4")
@pytest.mark.parametrize(
    ("stored", "offered", "expected"),
    [
        (Applied(1, 7), Applied(1, 8), True),
        (Applied(1, 7), Applied(1, 7), False),
        (Applied(1, 7), Applied(1, 6), False),
        (Applied(1, 7), Applied(2, 0), True),
        (Applied(2, 0), Applied(1, 999), False),
    ],
)
def test_only_newer_versions_are_taken(
    run: Callable[[Check], None], stored: Applied, offered: Applied, *, expected: bool
) -> None:
    """A version replaces another only if it holds more of the log: later in its epoch, or of a later epoch [A8]."""

    async def check(store: RowStore) -> None:
        first = replace(image_of(new_key()), applied=stored)
        second = replace(first, applied=offered, human=99)
        assert await store.store([Write(first, stored=False)]) == [True]

        taken = await store.store([Write(second, stored=True)])

        assert taken == [expected]
        assert await store.load([first.id]) == {first.id: second if expected else first}

    run(check)


@pytest.mark.rule("A4")
def test_a_wrong_belief_is_refused(run: Callable[[Check], None]) -> None:
    """A row that is said to be new but exists, or to exist but is new, is not written; its neighbours are."""

    async def check(store: RowStore) -> None:
        key = new_key()
        old, new = image_of(key, hour=MIDNIGHT), image_of(key, hour=MIDNIGHT + 1)
        other = image_of(key, hour=MIDNIGHT + 2)
        await store.store([Write(old, stored=False)])
        newer_old = replace(old, applied=Applied(1, 100))

        taken = await store.store([Write(newer_old, stored=False), Write(new, stored=True), Write(other, stored=False)])

        assert taken == [False, False, True]
        assert await store.load([old.id, new.id, other.id]) == {old.id: old, other.id: other}

    run(check)


@pytest.mark.rule("A7")
def test_a_read_gives_the_hours_asked_for(run: Callable[[Check], None]) -> None:
    """A read over days returns a link's rows of all partitions from the first hour to before the last."""

    async def check(store: RowStore) -> None:
        key = new_key()
        inside = [
            image_of(key, hour=MIDNIGHT + 23),
            image_of(key, hour=MIDNIGHT + 24, partition=4),
            image_of(key, hour=MIDNIGHT + 24),
            image_of(key, hour=MIDNIGHT + 60),
        ]
        outside = [image_of(key, hour=MIDNIGHT + 22), image_of(key, hour=MIDNIGHT + 61), image_of(new_key())]
        await store.store([Write(image, stored=False) for image in inside + outside])

        found = await store.read(key, range(MIDNIGHT + 23, MIDNIGHT + 61))

        assert sorted(row.id for row in found) == sorted(image.id for image in inside)
        assert await store.read(key, range(MIDNIGHT, MIDNIGHT)) == []

    run(check)


@pytest.mark.rule("A1", "A4")
def test_rows_of_both_kinds_are_kept_alike(run: Callable[[Check], None]) -> None:
    """Top links are loaded, conditional and read as rows of links are, and one call may have both."""

    async def check(store: RowStore) -> None:
        key, user = new_key(), f"user-{next(_numbers)}"
        link, top = image_of(key), top_of(user)
        assert await store.store([Write(link, stored=False), Write(top, stored=False)]) == [True, True]
        older, newer = replace(top, applied=Applied(1, 6)), replace(top, applied=Applied(1, 8), links={"one": 9})

        assert await store.store([Write(older, stored=True)]) == [False]
        assert await store.store([Write(newer, stored=True)]) == [True]

        assert await store.load([link.id, top.id, TopId(9, UserId(user), top.id.day)]) == {link.id: link, top.id: newer}

    run(check)


@pytest.mark.rule("A7")
def test_a_read_of_top_links_gives_the_days_asked_for(run: Callable[[Check], None]) -> None:
    """All partitions' rows of an account from the first day to before the last, and nobody else's."""

    async def check(store: RowStore) -> None:
        user, other, day = f"user-{next(_numbers)}", f"user-{next(_numbers)}", MIDNIGHT // 24
        inside = [top_of(user), top_of(user, partition=4), top_of(user, day=day + 2)]
        outside = [top_of(user, day=day - 1), top_of(user, day=day + 3), top_of(other)]
        await store.store([Write(image, stored=False) for image in inside + outside])

        found = await store.read_tops(UserId(user), range(day, day + 3))

        assert sorted(row.id for row in found) == sorted(image.id for image in inside)
        assert all(row.links == {"one": 2, "go.example.com/two": 1} for row in found)

    run(check)


@pytest.mark.rule("C1")
def test_a_store_that_is_away_says_so(run: Callable[[Check], None]) -> None:
    """Each call raises Unavailable, of one kind, not a group, while the database does not answer."""

    async def away(store: RowStore) -> None:
        key = new_key()
        with pytest.raises(Unavailable):
            await store.load([image_of(key).id])
        with pytest.raises(Unavailable):
            await store.store([Write(image_of(key), stored=False)])
        with pytest.raises(Unavailable):
            await store.read(key, range(MIDNIGHT, MIDNIGHT + 48))
        with pytest.raises(Unavailable):
            await store.read_tops(UserId("somebody"), range(3))

    async def check(store: RowStore) -> None:
        if isinstance(store, FakeRowStore):
            store.away = True
            await away(store)
        else:
            await _on_dynamodb(f"http://127.0.0.1:{free_port()}", away)

    run(check)
