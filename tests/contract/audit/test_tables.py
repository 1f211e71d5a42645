"""What AccountKeys and EntryIndex promise, on the fakes and on a real DynamoDB engine."""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from audit.adapters.account_keys_dynamodb import DynamoDBAccountKeys
from audit.adapters.entry_index_dynamodb import DynamoDBEntryIndex
from audit.domain.leaf import IndexRow, KeyKind, KeyOwner
from audit.domain.listing import Cursor, cursor_after
from audit.ports import AccountKeys, EntryIndex
from chassis.dynamodb import open_dynamodb
from chassis.errors import Unavailable
from contracts.link import EventId, LinkKey, UserId
from linkmesh.local.engines import DynamoDBEngine
from tests.fakes.audit_ports import Database, FakeAccountKeys, FakeEntryIndex

_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Subject:
    """The ports of one process; `other_keys` are another process's."""

    keys: AccountKeys
    other_keys: AccountKeys
    index: EntryIndex


Check = Callable[[Subject], Coroutine[None, None, None]]
Run = Callable[[Check], None]


@pytest.fixture(params=["fake", "dynamodb"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a check against one kind of store."""
    if request.param == "fake":
        database = Database()
        fake = Subject(FakeAccountKeys(database), FakeAccountKeys(database), FakeEntryIndex(database))
        return lambda check: asyncio.run(check(fake))
    engine: DynamoDBEngine = request.getfixturevalue("dynamodb")

    async def on_dynamodb(check: Check) -> None:
        async with open_dynamodb(engine.endpoint) as client:
            keys = [DynamoDBAccountKeys(client, make_key=secrets.token_bytes, timeout_s=5) for _ in range(2)]
            await check(Subject(keys[0], keys[1], DynamoDBEntryIndex(client, timeout_s=5)))

    return lambda check: asyncio.run(on_dynamodb(check))


def name() -> str:
    """A name no other test has."""
    return f"audit-{next(_numbers)}"


def row(user: str, code: str, offset: int, *, version: int = 0, partition: int = 4) -> IndexRow:
    """The row of a link's event; a second passes between offsets."""
    return IndexRow(
        user_id=UserId(user), key=LinkKey(code), short_code=code, version=version or offset + 1,
        at=_AT + timedelta(seconds=offset), event_id=EventId(f"event-{offset}"),
        event_type="shortener.events.v1.LinkUpdated", partition=partition, offset=offset, leaf_index=offset * 2,
    )  # fmt: skip


@pytest.mark.rule("B3")
def test_keys_are_made_once_and_stay(run: Run) -> None:
    """Many at once, again, and from another process: each owner has one key of 32 bytes, and no two the same."""
    prefix = name()
    owners = [KeyOwner(KeyKind.ACCOUNT, f"{prefix}-{number}") for number in range(130)]
    owners.append(KeyOwner(KeyKind.LOG, f"{prefix}-0"))  # an account's name is not a log's

    async def check(subject: Subject) -> None:
        some = await subject.keys.of(owners[:40])
        everything = await subject.keys.of(owners)
        assert await subject.other_keys.of(owners) == everything
        assert {owner: everything[owner] for owner in owners[:40]} == some
        assert len(set(everything.values())) == len(owners)
        assert {len(key) for key in everything.values()} == {32}
        assert await subject.keys.of([]) == {}

    run(check)


@pytest.mark.rule("B3")
def test_keys_that_two_processes_make_at_once_are_the_same(run: Run) -> None:
    """Whoever comes first makes the key; both use it."""
    owners = [KeyOwner(KeyKind.ACCOUNT, name()) for _ in range(30)]

    async def check(subject: Subject) -> None:
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(keys.of(owners)) for keys in (subject.keys, subject.other_keys)]
        assert both[0].result() == both[1].result()

    run(check)


@pytest.mark.rule("B3")
def test_rows_are_found_by_account_and_by_link_in_order(run: Run) -> None:
    """An account's rows come newest first, a link's oldest first, page by page; storing again changes nothing."""
    user, code = name(), name()
    rows = [row(user, code, offset) for offset in range(70)]

    async def check(subject: Subject) -> None:
        await subject.index.store(rows[::-1])
        await subject.index.store(rows)
        await subject.index.store([])
        await subject.keys.of([KeyOwner(KeyKind.ACCOUNT, user)])  # lies beside the rows, and is none

        assert await pages(lambda after: subject.index.of_link(LinkKey(code), limit=11, after=after)) == rows
        found = await pages(lambda after: subject.index.of_account(UserId(user), limit=11, after=after))
        assert found == rows[::-1]
        assert not await subject.index.of_account(UserId(name()), limit=11, after=None)
        assert not await subject.index.of_link(LinkKey(name()), limit=11, after=None)

    run(check)


async def pages(query: Callable[[Cursor | None], Coroutine[None, None, Sequence[IndexRow]]]) -> list[IndexRow]:
    """All pages of a query; only the last may be short."""
    found: list[IndexRow] = []
    cursor: Cursor | None = None
    while True:
        page = await query(cursor)
        found += page
        if len(page) < 11:
            return found
        cursor = cursor_after("s", page, cursor)


def test_rows_of_many_accounts_do_not_mix(run: Run) -> None:
    """A row is under its account and its link, and under nothing else; without an account only under the link."""
    ada, bob, code = name(), name(), name()
    nobody = replace(row("", code, 2), user_id=UserId(""))

    async def check(subject: Subject) -> None:
        await subject.index.store([row(ada, code, 0), row(bob, code, 1), nobody])
        assert await subject.index.of_account(UserId(ada), limit=9, after=None) == [row(ada, code, 0)]
        assert [r.offset for r in await subject.index.of_link(LinkKey(code), limit=9, after=None)] == [0, 1, 2]

    run(check)


@pytest.mark.rule("O2")
def test_earlier_rows_of_an_event_are_found(run: Run) -> None:
    """A repeat knows of its first occurrence, and a first occurrence of none."""
    user, code = name(), name()
    first = row(user, code, 0)
    again = replace(row(user, code, 5), event_id=first.event_id)

    async def check(subject: Subject) -> None:
        await subject.index.store([first, *(row(user, code, offset) for offset in range(1, 5)), again])
        assert await subject.index.has_earlier(again, first.event_id)
        assert not await subject.index.has_earlier(first, first.event_id)
        assert not await subject.index.has_earlier(again, EventId("event-9"))

    run(check)


def test_database_that_is_away_is_told_as_such(dynamodb_fresh: DynamoDBEngine) -> None:
    """A killed database is Unavailable for every method: the consumer pauses, no record is blamed [C1]."""

    async def check() -> None:
        async with open_dynamodb(dynamodb_fresh.endpoint, timeout_s=1) as client:
            keys = DynamoDBAccountKeys(client, make_key=secrets.token_bytes)
            index = DynamoDBEntryIndex(client)
            dynamodb_fresh.kill()
            with pytest.raises(Unavailable):
                await keys.of([KeyOwner(KeyKind.ACCOUNT, "ada")])
            with pytest.raises(Unavailable):
                await index.store([row("ada", "abc", offset) for offset in range(60)])
            with pytest.raises(Unavailable):
                await index.of_account(UserId("ada"), limit=1, after=None)
            with pytest.raises(Unavailable):
                await index.has_earlier(row("ada", "abc", 1), EventId("e"))

    asyncio.run(check())
