"""A DynamoDB client with deadlines, its errors as ours, and consistent reads of many items."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aioboto3
from aiobotocore.config import AioConfig
from botocore import exceptions

from chassis.backoff import Backoff
from chassis.errors import Unavailable

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef as Attribute
    from types_aiobotocore_dynamodb.type_defs import KeysAndAttributesTypeDef as Asked
else:
    Attribute = dict

Item = dict[str, Attribute]

BATCH_GET_MAX = 100  # keys of one BatchGetItem
_UNPROCESSED = Backoff(first_s=0.02, cap_s=0.5)  # keys are left out for size, too, so the first retry comes soon

# The client errors that judge the content of a request. Every other one, known or not, is the dependency's [C1]: a
# wrong clock (InvalidSignatureException), throttling, missing rights and the like pass, and the same request is good.
_VERDICTS = frozenset(
    {
        "ConditionalCheckFailedException", "DuplicateItemException", "ItemCollectionSizeLimitExceededException",
        "TransactionCanceledException", "ValidationException",
    }
)  # fmt: skip


@contextlib.asynccontextmanager
async def open_dynamodb(
    endpoint: str, *, timeout_s: float = 2.0, check_parameters: bool = True
) -> AsyncIterator["DynamoDBClient"]:
    """A client, closed on the way out. An endpoint is an engine on this machine; empty is AWS with its credentials.

    `check_parameters` False leaves it to the database to judge the form of requests, and to the type checker before:
    the library's own look at every value is a quarter of what a batch of writes costs.
    """
    config = AioConfig(
        connect_timeout=min(1.0, timeout_s),
        read_timeout=timeout_s,
        max_pool_connections=50,
        retries={"total_max_attempts": 1},  # the caller decides what is repeated
        parameter_validation=check_parameters,
    )
    if endpoint:
        session = aioboto3.Session("local", "local", region_name="us-east-1")
        async with session.client("dynamodb", endpoint_url=endpoint, config=config) as client:
            yield client
    else:
        async with aioboto3.Session().client("dynamodb", config=config) as client:
            yield client


@contextlib.contextmanager
def dynamodb_errors() -> Iterator[None]:
    """Turns what the database being away, hung or throttled raises into Unavailable; verdicts on content pass [C1].

    Raises:
        Unavailable: refused, timed out, throttled, 5xx, not permitted, or an error that we do not know.
    """
    try:
        yield
    except exceptions.ClientError as exc:
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status >= 500 or exc.response.get("Error", {}).get("Code") not in _VERDICTS:
            raise Unavailable("unavailable", "The database does not take the request.", retry_after_s=1) from exc
        raise
    except (exceptions.BotoCoreError, OSError, TimeoutError) as exc:
        raise Unavailable("unavailable", "The database does not answer.", retry_after_s=1) from exc


@dataclass(frozen=True, slots=True)
class Page:
    """What one call of a batch answered: `keys`, of which `items` exist, in no order."""

    keys: Sequence[Item]
    items: Sequence[Item]


async def batch_get(
    client: "DynamoDBClient",
    table: str,
    keys: Sequence[Item],
    *,
    timeout_s: float,
    attributes: Sequence[str] = (),
    calls_max: int = 1,
) -> list[Item]:
    """The items of these keys (`pk` and `sk`, both texts) that exist, read consistently, in no order.

    Every key is answered, or the call raises. A hundred keys are one BatchGetItem, which has timeout_s seconds with all
    that is asked again of it; `calls_max` of them run at a time. `attributes`: only these of each item; none: all.

    Raises:
        Unavailable: the database is away, hangs, throttles, or left keys unprocessed until the deadline.
    """
    turns = asyncio.Semaphore(calls_max)

    async def read(part: Sequence[Item]) -> list[Item]:
        async with turns:
            pages = batch_get_pages(client, table, part, timeout_s=timeout_s, attributes=attributes)
            return [item async for page in pages for item in page.items]

    parts = [keys[start : start + BATCH_GET_MAX] for start in range(0, len(keys), BATCH_GET_MAX)]
    if len(parts) == 1:
        return await read(parts[0])
    try:
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(read(part)) for part in parts]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures  # one is as good as all: the read is repeated
    return [item for call in calls for item in call.result()]


async def batch_get_pages(
    client: "DynamoDBClient", table: str, keys: Sequence[Item], *, timeout_s: float, attributes: Sequence[str] = ()
) -> AsyncIterator[Page]:
    """Consistent reads of at most 100 keys, each page as soon as the database has answered it, each key in one page.

    A key that the database leaves unprocessed (it throttles one partition, or the answer got too large) is neither
    there nor absent: it is asked for again, after a pause that grows, until timeout_s seconds are over.

    Raises:
        Unavailable: the database is away, hangs, throttles, or left keys unprocessed until the deadline. The keys of
            earlier pages are answered all the same.
        ValueError: more than 100 keys.
    """
    left = {_name(key): key for key in keys}  # the database refuses a batch that names a key twice
    if len(left) > BATCH_GET_MAX:
        raise ValueError(f"{len(left)} keys are more than one BatchGetItem takes")
    deadline = asyncio.get_running_loop().time() + timeout_s
    attempt = 0
    while left:
        asked: Asked = {"Keys": list(left.values()), "ConsistentRead": True}
        if attributes:
            asked["ProjectionExpression"] = ", ".join(f"#{name}" for name in attributes)
            asked["ExpressionAttributeNames"] = {f"#{name}": name for name in attributes}
        with dynamodb_errors():
            async with asyncio.timeout_at(deadline):
                if attempt:
                    await asyncio.sleep(_UNPROCESSED.delay_s(attempt - 1))
                answer = await client.batch_get_item(RequestItems={table: asked})
        attempt += 1
        again = answer["UnprocessedKeys"].get(table) if "UnprocessedKeys" in answer else None
        undone = {_name(key): left[_name(key)] for key in again["Keys"]} if again else {}
        answered = [key for name, key in left.items() if name not in undone]
        left = undone
        yield Page(answered, answer["Responses"].get(table, []))


def _name(key: "Mapping[str, Attribute]") -> tuple[str, str]:
    return key["pk"]["S"], key["sk"]["S"]
