"""The link tables in DynamoDB: conditional PartiQL statements, 25 a call, each with a result of its own [W4].

PartiQL has no attribute_not_exists, but an INSERT of an existing key is DuplicateItem for that statement alone, and an
UPDATE whose WHERE does not hold, or whose row is not there, is ConditionalCheckFailed.
"""

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import ClientError
from prometheus_client import Counter

from chassis.backoff import Backoff
from chassis.dynamodb import batch_get, dynamodb_errors
from chassis.errors import Unavailable
from contracts.link import Link, LinkKey
from contracts.link_rows import WritableRow, event_to_row, link_to_row, row_key
from contracts.tables import LINKS, event_sk
from writer.domain import Result
from writer.ports import StoredEvent

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import BatchStatementRequestTypeDef as Statement
    from types_aiobotocore_dynamodb.type_defs import BatchStatementResponseTypeDef as Answer

REPEATED = Counter("writer_statements_repeated_total", "Statements sent again, since the database throttled or failed")
Item = TypeVar("Item")
_STATEMENTS_MAX = 25  # of one BatchExecuteStatement
_THROTTLED = Backoff(first_s=0.05, cap_s=1.0)
_KEY = frozenset({"pk", "sk"})


class DynamoDBLinkTable:
    """LinkTable on DynamoDB. `timeout_s` bounds each request; a database that answers, but throttles or fails, is asked
    again for `patience_s`: that slows the writer down, where giving up would stop it for a second each time."""

    def __init__(self, client: "DynamoDBClient", *, timeout_s: float, patience_s: float = 10.0) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    async def insert_events(self, events: Sequence[StoredEvent]) -> list[Result]:
        """Puts event rows where there are none."""
        return await self._execute([_insert(event_to_row(item.event, item.data)) for item in events])

    async def stored_event_ids(self, events: Sequence[StoredEvent]) -> list[str | None]:
        """The event ids of these events' rows; None where there is no row."""
        keys = [row_key(item.event.link.key, event_sk(item.event.version)) for item in events]
        rows = await self._read(keys, ("pk", "sk", "event_id"))
        return [row["event_id"]["S"] if (row := rows.get(_name(key))) else None for key in keys]

    async def insert_links(self, links: Sequence[Link]) -> list[Result]:
        """Puts projections where there are none."""
        return await self._execute([_insert(link_to_row(link)) for link in links])

    async def update_links(self, links: Sequence[Link]) -> list[Result]:
        """Sets projections that have no version or an older one."""
        return await self._execute([_update_if_newer(link_to_row(link)) for link in links])

    async def read_links(self, links: Sequence[Link]) -> list[Result]:
        """Whether there are projections."""
        keys = [row_key(link.key) for link in links]
        rows = await self._read(keys, ("pk", "sk"))
        return [Result.EXISTS if _name(key) in rows else Result.ABSENT for key in keys]

    async def versions(self, keys: Sequence[LinkKey]) -> list[int | None]:
        """The versions of the projections; None where there is none."""
        names = [row_key(key) for key in keys]
        rows = await self._read(names, ("pk", "sk", "version"))
        found = [rows.get(_name(name), {}).get("version", {}).get("N") for name in names]
        return [None if number is None else int(number) for number in found]

    async def have_first_events(self, keys: Sequence[LinkKey]) -> list[bool]:
        """Whether these links' first event rows are there."""
        names = [row_key(key, event_sk(1)) for key in keys]
        rows = await self._read(names, ("pk", "sk"))
        return [_name(name) in rows for name in names]

    async def _execute(self, statements: Sequence["Statement"]) -> list[Result]:
        """The results of the statements, in order; the calls go out together."""
        try:
            return await self._execute_calls(_parts(statements, _STATEMENTS_MAX))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # one is as good as all: the batch is repeated

    async def _execute_calls(self, parts: Sequence[Sequence["Statement"]]) -> list[Result]:
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(self._execute_one_call(part)) for part in parts]
        return [result for call in calls for result in call.result()]

    async def _execute_one_call(self, statements: Sequence["Statement"]) -> list[Result]:
        """The results of at most 25 statements; those that it throttles are sent again, and no others [W4]."""
        give_up = asyncio.get_running_loop().time() + self._patience_s
        results: dict[int, Result] = {}
        for attempt in itertools.count():
            left = [place for place in range(len(statements)) if place not in results]
            answers = await self._ask([statements[place] for place in left], attempt, give_up)
            for place, answer in zip(left, answers, strict=False):  # without answers: refused as a whole
                result = _result(answer)
                if result is not None:
                    results[place] = result
            if len(results) == len(statements):
                break
            REPEATED.inc(len(statements) - len(results))
        return [results[place] for place in range(len(statements))]

    async def _ask(self, statements: Sequence["Statement"], attempt: int, give_up: float) -> Sequence["Answer"]:
        """The answers, after a pause that grows with the attempts; none: the database refused the call as a whole.

        Raises:
            Unavailable: the database is away or hangs, or throttles for too long.
        """
        if attempt:
            pause_s = _THROTTLED.delay_s(attempt - 1)
            if asyncio.get_running_loop().time() + pause_s > give_up:
                raise Unavailable("unavailable", "The database throttles.", retry_after_s=1)
            await asyncio.sleep(pause_s)
        try:
            with dynamodb_errors():
                async with asyncio.timeout(self._timeout_s):
                    response = await self._client.batch_execute_statement(Statements=statements)
        except Unavailable as exc:
            if isinstance(exc.__cause__, ClientError):
                return []  # it answers: throttled, or an error of its own
            raise
        return response["Responses"]

    async def _read(
        self, keys: Sequence[WritableRow], attributes: Sequence[str]
    ) -> dict[tuple[str, str], "WritableRow"]:
        """The rows that exist, by key; every key is answered or the call fails."""
        rows = await batch_get(self._client, LINKS.name, keys, timeout_s=self._timeout_s, attributes=attributes)
        return {_name(row): row for row in rows}


def _insert(row: WritableRow) -> "Statement":
    names = ", ".join(f"'{name}': ?" for name in row)
    return {"Statement": f'INSERT INTO "{LINKS.name}" VALUE {{{names}}}', "Parameters": list(row.values())}


def _update_if_newer(row: WritableRow) -> "Statement":
    assigned = {name: value for name, value in row.items() if name not in _KEY}
    names = ", ".join(f'"{name}" = ?' for name in assigned)
    return {
        "Statement": f'UPDATE "{LINKS.name}" SET {names} WHERE "pk" = ? AND "sk" = ? '  # noqa: S608 (our own names)
        'AND ("version" IS MISSING OR "version" < ?)',
        "Parameters": [*assigned.values(), row["pk"], row["sk"], row["version"]],
    }


def _result(answer: "Answer") -> Result | None:
    """What one statement's own result says; HTTP 200 says nothing [W4].

    None: the statement was throttled, or failed for a reason that is not its content's [C1]; another time it will do.
    """
    error = answer.get("Error")
    if error is None:
        return Result.STORED
    match error.get("Code"):
        case "DuplicateItem" | "DuplicateItemException":
            return Result.EXISTS
        case "ConditionalCheckFailed" | "ConditionalCheckFailedException":
            return Result.REFUSED
        case "ValidationError" | "ItemCollectionSizeLimitExceeded":
            return Result.INVALID
        case _:
            return None


def _parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _name(key: WritableRow) -> tuple[str, str]:
    return key["pk"]["S"], key["sk"]["S"]
