"""A DynamoDB client with deadlines, and its errors as ours."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import aioboto3
from aiobotocore.config import AioConfig
from botocore import exceptions

from chassis.errors import Unavailable

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

# The client errors that judge the content of a request. Every other one, known or not, is the dependency's [C1]: a
# wrong clock (InvalidSignatureException), throttling, missing rights and the like pass, and the same request is good.
_VERDICTS = frozenset(
    {
        "ConditionalCheckFailedException", "DuplicateItemException", "ItemCollectionSizeLimitExceededException",
        "TransactionCanceledException", "ValidationException",
    }
)  # fmt: skip


@contextlib.asynccontextmanager
async def open_dynamodb(endpoint: str, *, timeout_s: float = 2.0) -> AsyncIterator["DynamoDBClient"]:
    """A client, closed on the way out. An endpoint is an engine on this machine; empty is AWS with its credentials."""
    config = AioConfig(
        connect_timeout=min(1.0, timeout_s),
        read_timeout=timeout_s,
        max_pool_connections=50,
        retries={"total_max_attempts": 1},  # the caller decides what is repeated
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
