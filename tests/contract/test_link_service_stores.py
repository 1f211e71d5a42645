"""What link_service's ports promise, on the fakes and on real engines."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from chassis.auth import Plan
from chassis.clock import SystemClock, uuid7
from chassis.dynamodb import open_dynamodb
from chassis.redis import open_redis
from contracts.codes import ID_BLOCK, SPACE
from contracts.link import EventId, Link, LinkKey, UserId
from contracts.link_codec import UndecodableError, encode_event
from contracts.link_rows import Reservation, event_to_row, link_to_row
from contracts.tables import COUNTERS, LINKS
from link_service.adapters.accounts_dynamodb import DynamoDBAccounts
from link_service.adapters.cache_server_redis import RedisCacheServer
from link_service.adapters.id_counter_dynamodb import DynamoDBIdCounter
from link_service.adapters.intents_redis import RedisIntents
from link_service.adapters.link_keys_dynamodb import DynamoDBLinkKeys
from link_service.adapters.link_table_dynamodb import DynamoDBLinkTable
from link_service.adapters.redis_line import RedisLine
from link_service.domain.ids import IdBlock
from link_service.domain.intents import Intent
from link_service.ports import (
    READS_MAX,
    Accounts,
    BadCursorError,
    CacheServer,
    IdCounter,
    Intents,
    KeyClaim,
    LinkKeys,
    LinkTable,
    StoredKey,
)
from linkmesh.local.engines import DynamoDBEngine, ValkeyEngine
from tests.fakes.link_events import event_of, make_link
from tests.fakes.link_service_ports import (
    FakeAccounts,
    FakeCacheServer,
    FakeIdCounter,
    FakeIntents,
    FakeLinkKeys,
    FakeLinkTable,
)

AT = datetime(2026, 5, 1, 12, 0, 0, 123_456, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass
class Stores:
    """All ports of one kind of world, and what only a test may do to it."""

    table: LinkTable
    counter: IdCounter
    server: CacheServer
    intents: Intents
    accounts: Accounts
    keys: LinkKeys
    put_link: Callable[[LinkKey], Awaitable[Link]]  # a link at version 3, with the rows of its events
    set_counter: Callable[[int], Awaitable[None]]


Scenario = Callable[[Stores], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture(params=["fake", "engines"])
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a scenario in one of the worlds."""
    if request.param == "fake":
        return lambda scenario: asyncio.run(_on_fakes(scenario))
    redis: ValkeyEngine = request.getfixturevalue("valkey_fresh")
    dynamodb: DynamoDBEngine = request.getfixturevalue("dynamodb")
    return lambda scenario: asyncio.run(_on_engines(scenario, redis, dynamodb))


async def _on_fakes(scenario: Scenario) -> None:
    table, counter = FakeLinkTable(), FakeIdCounter()

    async def put_link(key: LinkKey) -> Link:
        link = make_link(key, version=3)
        table.meta[key] = link
        table.rows |= {(key, version): event_of(make_link(key, version=version)) for version in (1, 2, 3)}
        return link

    async def set_counter(value: int) -> None:
        counter.next = value

    keys = FakeLinkKeys(table)
    stores = Stores(table, counter, FakeCacheServer(), FakeIntents(), FakeAccounts(), keys, put_link, set_counter)
    await scenario(stores)


async def _on_engines(scenario: Scenario, redis: ValkeyEngine, dynamodb: DynamoDBEngine) -> None:
    async with open_redis(redis.url, timeout_s=5) as client, open_dynamodb(dynamodb.endpoint) as database:
        line = RedisLine(client, clock=SystemClock(), timeout_s=5)

        async def put_link(key: LinkKey) -> Link:
            link = make_link(key, version=3)
            await database.put_item(TableName=LINKS.name, Item=link_to_row(link))
            for version in (1, 2, 3):
                event = event_of(make_link(key, version=version))
                await database.put_item(TableName=LINKS.name, Item=event_to_row(event, encode_event(event)))
            return link

        async def set_counter(value: int) -> None:
            item = {"pk": {"S": "ids"}, "sk": {"S": "META"}, "next": {"N": str(value)}}
            await database.put_item(TableName=COUNTERS.name, Item=item)

        await database.delete_item(TableName=COUNTERS.name, Key={"pk": {"S": "ids"}, "sk": {"S": "META"}})
        await scenario(
            Stores(
                DynamoDBLinkTable(database),
                DynamoDBIdCounter(database),
                RedisCacheServer(line),
                RedisIntents(line),
                DynamoDBAccounts(database),
                DynamoDBLinkKeys(database),
                put_link,
                set_counter,
            )
        )


def new_key() -> LinkKey:
    """A code that no other test has."""
    return LinkKey(f"store-{next(_numbers)}")


def reservation(key: LinkKey, *, user_id: str = "ada") -> Reservation:
    """A reservation by a new event."""
    return Reservation(key=key, user_id=UserId(user_id), event_id=EventId(uuid7(AT)), at=AT, redis_run_id="run-1")


@pytest.mark.rule("K2", "P3")
def test_a_reservation_is_put_over_nothing_or_over_exactly_the_one_that_was_read(play: Play) -> None:
    """K2: the put is conditional: on nothing, or on the RESERVED item that was read; everything else is refused."""

    async def scenario(stores: Stores) -> None:
        key = new_key()
        first, second, third = reservation(key), reservation(key, user_id="eve"), reservation(key)
        assert await stores.table.read(key) is None

        assert await stores.table.reserve(first, over=None)
        assert await stores.table.read(key) == first
        assert not await stores.table.reserve(second, over=None)
        assert not await stores.table.reserve(second, over=third)
        assert await stores.table.reserve(second, over=first)
        assert not await stores.table.reserve(third, over=first)

        assert await stores.table.read(key) == second

    play(scenario)


@pytest.mark.rule("R5", "K2")
@pytest.mark.parametrize("count", [1, READS_MAX])
def test_many_links_are_read_as_one_is(play: Play, count: int) -> None:
    """R5: each link that is asked for is in exactly one part: as it is, as a reservation, or absent."""

    async def scenario(stores: Stores) -> None:
        keys = [new_key() for _ in range(count)]
        expected: dict[LinkKey, Link | Reservation | UndecodableError | None] = dict.fromkeys(keys)
        for key in keys[:3]:
            expected[key] = await stores.put_link(key)
        for key in keys[3:5]:
            expected[key] = reserved = reservation(key)
            assert await stores.table.reserve(reserved, over=None)

        parts = [part async for part in stores.table.read_many(keys)]

        assert sorted(key for part in parts for key in part) == sorted(keys)
        assert {key: found for part in parts for key, found in part.items()} == expected

    play(scenario)


@pytest.mark.rule("K2", "P3")
def test_a_link_is_never_reserved(play: Play) -> None:
    """K2: no reservation is put over a link, not even over the reservation it came from."""

    async def scenario(stores: Stores) -> None:
        key = new_key()
        older = reservation(key)
        assert await stores.table.reserve(older, over=None)
        link = await stores.put_link(key)

        assert not await stores.table.reserve(reservation(key), over=None)
        assert not await stores.table.reserve(reservation(key), over=older)
        assert await stores.table.read(key) == link
        assert await stores.table.has_event(key, 3)
        assert not await stores.table.has_event(key, 4)
        assert not await stores.table.has_event(new_key(), 1)

    play(scenario)


@pytest.mark.rule("W3")
def test_events_are_read_in_the_order_of_versions(play: Play) -> None:
    """A page begins where it is asked to and is as long as it is asked to; the projection and other links stay out."""

    async def scenario(stores: Stores) -> None:
        key = new_key()
        assert await stores.table.list_events(key, first=1, count=10) == []
        await stores.put_link(LinkKey(f"{key}-other"))
        await stores.put_link(key)

        whole = await stores.table.list_events(key, first=1, count=10)
        part = await stores.table.list_events(key, first=2, count=1)

        assert [(event.version, event.link.key) for event in whole] == [(1, key), (2, key), (3, key)]
        assert list(part) == [whole[1]] == [await stores.table.read_event(key, 2)]
        assert await stores.table.list_events(key, first=4, count=10) == []
        assert await stores.table.read_event(key, 4) is None

    play(scenario)


@pytest.mark.rule("W2", "W1")
def test_a_projection_is_put_unless_there_is_a_newer_one(play: Play) -> None:
    """W2: over nothing, a reservation, an older or the same version; never over a newer one."""

    async def scenario(stores: Stores) -> None:
        key, other = new_key(), new_key()
        assert await stores.table.newest_event(key) is None
        assert await stores.table.reserve(reservation(other), over=None)
        stored = await stores.put_link(key)
        newest = await stores.table.newest_event(key)
        assert newest is not None
        assert newest.version == stored.version == 3

        assert not await stores.table.project(make_link(key, version=2))
        assert await stores.table.read(key) == stored
        for link in (newest.link, make_link(key, version=4), make_link(other), make_link(new_key(), version=2)):
            assert await stores.table.project(link)
            assert await stores.table.read(link.key) == link

    play(scenario)


@pytest.mark.rule("K1", "P3")
def test_blocks_are_leased_one_after_the_other(play: Play) -> None:
    """K1: each lease gives the next block, also when many lease at once."""

    async def scenario(stores: Stores) -> None:
        assert await stores.counter.lease(at_least=0) == IdBlock(0)
        assert await stores.counter.lease(at_least=ID_BLOCK) == IdBlock(ID_BLOCK)

        async with asyncio.TaskGroup() as tasks:
            leases = [tasks.create_task(stores.counter.lease(at_least=2 * ID_BLOCK)) for _ in range(20)]

        found = sorted(block.first for task in leases if (block := task.result()) is not None)
        assert found == [number * ID_BLOCK for number in range(2, 22)]

    play(scenario)


@pytest.mark.rule("K1", "P3")
def test_a_counter_below_the_mark_leases_nothing(play: Play) -> None:
    """K1: a counter that went back, or has come to the end of the code space, gives no block and stays as it is."""

    async def scenario(stores: Stores) -> None:
        assert await stores.counter.lease(at_least=ID_BLOCK) is None  # it is not even there
        await stores.set_counter(3 * ID_BLOCK)
        assert await stores.counter.lease(at_least=5 * ID_BLOCK) is None
        assert await stores.counter.lease(at_least=3 * ID_BLOCK) == IdBlock(3 * ID_BLOCK)
        await stores.set_counter(SPACE - ID_BLOCK + 1)

        assert await stores.counter.lease(at_least=0) is None
        assert await stores.counter.lease(at_least=ID_BLOCK) is None

    play(scenario)


@pytest.mark.rule("K1")
def test_the_mark_of_ids_only_rises(play: Play) -> None:
    """K1: `ids:high` is a maximum, whoever tells it in whatever order."""

    async def scenario(stores: Stores) -> None:
        assert await stores.server.ids_high() == 0
        for mark in (7 * ID_BLOCK, 3 * ID_BLOCK, SPACE, ID_BLOCK):
            await stores.server.raise_ids_high(mark)

        assert await stores.server.ids_high() == SPACE

    play(scenario)


@pytest.mark.rule("K2")
def test_redis_tells_its_run_and_its_outbox(play: Play) -> None:
    """K2: the run id is the same while Redis runs; an empty outbox has no oldest event."""

    async def scenario(stores: Stores) -> None:
        run_id = await stores.server.run_id()

        assert run_id
        assert await stores.server.run_id() == run_id
        assert await stores.server.oldest_in_outbox(new_key()) is None

    play(scenario)


@pytest.mark.rule("I1")
def test_an_intent_is_the_first_and_is_swapped_only_by_who_knows_it(play: Play) -> None:
    """I1: SET NX keeps the first intent; a swap is compare-and-set; accounts do not meet."""

    async def scenario(stores: Stores) -> None:
        ada, eve, name = UserId("ada"), UserId("eve"), f"r-{next(_numbers)}"
        first, second, third = (
            Intent(body_hash="b", event_id=EventId(uuid7(AT)), key=new_key(), not_after=AT + timedelta(seconds=30))
            for _ in range(3)
        )

        assert await stores.intents.begin(ada, name, first) == first
        assert await stores.intents.begin(ada, name, second) == first
        assert await stores.intents.begin(eve, name, second) == second
        assert await stores.intents.swap(ada, name, old=second, new=third) == first
        assert await stores.intents.swap(ada, name, old=first, new=third) == third
        assert await stores.intents.swap(ada, "none", old=first, new=third) is None

        assert await stores.intents.begin(ada, name, first) == third

    play(scenario)


@pytest.mark.rule("I3")
def test_an_intent_is_removed_by_the_last_of_its_carriers_and_by_nobody_else(play: Play) -> None:
    """I3: each call that was given the intent counts, until it gives it up itself; one that died stays counted."""

    async def scenario(stores: Stores) -> None:
        ada, name, intents = UserId("ada"), f"r-{next(_numbers)}", stores.intents
        first, second, other = (
            Intent(body_hash=body, event_id=EventId(uuid7(AT)), key=new_key(), not_after=AT + timedelta(seconds=30))
            for body in ("b", "b", "another request")
        )
        assert await intents.find(ada, name) is None
        assert not await intents.give_up(ada, name, first)
        await intents.begin(ada, name, first)
        await intents.begin(ada, name, second)
        await intents.begin(ada, name, other)  # turned away by its caller: it carries nothing

        assert not await intents.give_up(ada, name, second)  # nobody carries that one
        assert not await intents.give_up(ada, name, first)
        assert await intents.find(ada, name) == first
        assert await intents.give_up(ada, name, first)
        assert await intents.find(ada, name) is None

        await intents.begin(ada, name, first)
        await intents.begin(ada, name, second)
        assert await intents.swap(ada, name, old=first, new=second) == second
        assert await intents.swap(ada, name, old=first, new=other) == second  # another request: not counted
        assert await intents.swap(ada, name, old=first, new=first) == second  # finds it, and carries it from now on
        assert not await intents.give_up(ada, name, first)
        assert not await intents.give_up(ada, name, second)
        assert await intents.give_up(ada, name, second)

    play(scenario)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_every_link_is_on_one_page(play: Play, rows: int) -> None:
    """Pages of any size, over links of four rows and over reservations: each key once; a page may be repeated."""

    async def scenario(stores: Stores) -> None:
        wanted = [new_key() for _ in range(4)]
        for key in wanted[:3]:
            await stores.put_link(key)
        await stores.table.reserve(reservation(wanted[3]), over=None)

        page = await stores.keys.page("", rows=rows)
        assert await stores.keys.page("", rows=rows) == page
        found = list(page.keys)
        while page.cursor:
            page = await stores.keys.page(page.cursor, rows=rows)
            found += page.keys

        assert sorted(key for key in found if key in wanted) == sorted(wanted)
        assert len(found) == len(set(found))
        for wrong in ("x", "W10=", "ö"):
            with pytest.raises(BadCursorError):
                await stores.keys.page(wrong, rows=rows)

    play(scenario)


@pytest.mark.rule("I1")
def test_a_claim_of_a_key_stands_until_it_is_too_old(play: Play) -> None:
    """The first one under a name is everybody's, for as long as idempotency keys are honoured; names are an account's
    own."""

    async def scenario(stores: Stores) -> None:
        ada, eve = UserId(f"ada-{next(_numbers)}"), UserId(f"eve-{next(_numbers)}")
        first, second = KeyClaim("b1", "s1", AT), KeyClaim("b2", "s2", AT + timedelta(hours=25))
        long_ago, claims = AT - timedelta(days=1), stores.accounts.claim_key

        assert await claims(ada, "n", first, replaces_before=long_ago) == first
        assert await claims(ada, "n", second, replaces_before=long_ago) == first
        assert await claims(ada, "n", second, replaces_before=AT) == first
        assert await claims(eve, "n", second, replaces_before=long_ago) == second
        assert await claims(ada, "other", second, replaces_before=long_ago) == second
        assert await claims(ada, "n", second, replaces_before=AT + timedelta(hours=1)) == second
        assert await claims(ada, "n", first, replaces_before=AT + timedelta(hours=1)) == second

    play(scenario)


def test_keys_are_found_by_their_hash(play: Play) -> None:
    """A stored key is found at once with its account's plan; an account keeps the plan it was opened with."""

    async def scenario(stores: Stores) -> None:
        user_id = UserId(f"user-{next(_numbers)}")
        key = StoredKey(
            key_id="k1",
            key_hash=f"hash-{user_id}",
            user_id=user_id,
            scopes=("links:read", "links:write"),
            prefix="lk_live_abcd",
            created_at=AT,
        )
        assert await stores.accounts.find_key(key.key_hash) is None

        await stores.accounts.open_account(user_id, Plan.PREMIUM, AT)
        await stores.accounts.open_account(user_id, Plan.FREE, AT)
        await stores.accounts.add_key(key)

        assert await stores.accounts.find_key(key.key_hash) == (key, Plan.PREMIUM)

    play(scenario)
