"""Links by the hundred thousand, written past the API with the project's own codecs, and who asks for which of them.

A link costs a create some 300 µs and a line here 10: values go to Redis in MSETs without expiry, as if each had been
made a moment ago; rows go to the table in batches. Codes are of custom shape, since a generated one that was never
issued is refused without a look.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from chassis.dynamodb import open_dynamodb
from chassis.redis import open_redis
from contracts.cache import encode_entry, url_key
from contracts.link import EventId, Link, UserId, link_key
from contracts.link_codec import link_to_message
from contracts.link_rows import link_to_row
from contracts.tables import LINKS

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import WriteRequestTypeDef

OWNER = UserId("dev")  # whose key the local system makes
ZIPF_EXPONENT = 1.0  # the k-th most popular link is asked for 1/k as often as the first
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGITS = 5
_MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
_IN_REDIS_AT_ONCE = 2_000
_IN_TABLE_AT_ONCE = 25  # what BatchWriteItem takes
_WRITES_AT_ONCE = 4


def code_of(number: int) -> str:
    """The code of the n-th link: seven characters, one of them a dash."""
    digits = ""
    for _ in range(_DIGITS):
        number, digit = divmod(number, len(_LETTERS))
        digits = _LETTERS[digit] + digits
    return f"b-{digits}"


def url_of(number: int) -> str:
    """Where the n-th link leads."""
    return f"https://example.com/some/longer/path/{number}"


def link_of(number: int) -> Link:
    """The n-th link."""
    return Link(
        short_code=code_of(number),
        long_url=url_of(number),
        user_id=OWNER,
        version=1,
        event_id=EventId(f"00000000-0000-7000-8000-{number:012x}"),
        created_at=_MADE_AT,
        updated_at=_MADE_AT,
        is_custom=True,
    )


async def put_in_redis(url: str, numbers: Sequence[int]) -> None:
    """Stores the values of these links, without expiry."""
    async with open_redis(url, timeout_s=30) as redis:
        for start in range(0, len(numbers), _IN_REDIS_AT_ONCE):
            await redis.mset(values_of(numbers[start : start + _IN_REDIS_AT_ONCE]))


def values_of(numbers: Sequence[int]) -> dict[str, bytes]:
    """The keys and values of these links in Redis. They share an event id: nobody will ask which event it was."""
    first, values = link_of(0), {}
    message = link_to_message(first)  # one for all: making it anew is half of the work
    for number in numbers:
        message.short_code, message.long_url = code_of(number), url_of(number)
        values[url_key(link_key(message.short_code))] = encode_entry(
            first, message.SerializeToString(deterministic=True)
        )
    return values


async def drop_from_redis(url: str, numbers: Iterable[int]) -> None:
    """Makes Redis forget these links, as it does when their time is over."""
    async with open_redis(url, timeout_s=30) as redis:
        await redis.unlink(*(url_key(link_key(code_of(number))) for number in numbers))


async def put_in_table(endpoint: str, numbers: Sequence[int]) -> None:
    """Stores the projections of these links.

    Raises:
        RuntimeError: the database left rows unprocessed.
    """
    turns = asyncio.Semaphore(_WRITES_AT_ONCE)
    async with open_dynamodb(endpoint, timeout_s=30, check_parameters=False) as client:

        async def write(part: Sequence[int]) -> None:
            async with turns:
                rows: Sequence[WriteRequestTypeDef] = [
                    {"PutRequest": {"Item": link_to_row(link_of(number))}} for number in part
                ]
                answer = await client.batch_write_item(RequestItems={LINKS.name: rows})
                if answer.get("UnprocessedItems"):
                    raise RuntimeError("the database did not take the links")

        async with asyncio.TaskGroup() as tasks:
            for start in range(0, len(numbers), _IN_TABLE_AT_ONCE):
                tasks.create_task(write(numbers[start : start + _IN_TABLE_AT_ONCE]))


def zipf(links: int, count: int, *, seed: int = 1) -> list[int]:
    """The numbers of the links that `count` visitors ask for, by Zipf's law over so many links."""
    weights = accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, links + 1))
    return random.Random(seed).choices(range(links), cum_weights=list(weights), k=count)


def evenly(links: int, count: int, *, seed: int = 1) -> list[int]:
    """The same where all links are equally popular."""
    return random.Random(seed).choices(range(links), k=count)


def write_codes(path: Path, numbers: Iterable[int]) -> None:
    """Writes the codes of these links, each in a line of the same length, for paths.lua."""
    path.write_text("".join(f"{code_of(number)}\n" for number in numbers))
