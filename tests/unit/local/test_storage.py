"""Expiry of rows, on databases that have it, have it already, do not have it, or refuse."""

import asyncio
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from contracts.tables import WEBHOOKS
from linkmesh.local.storage import ensure_expiry


class FakeDatabase:
    """The two calls of a DynamoDB client. `refusal`: the code of the error that all calls end in."""

    def __init__(self, status: str, refusal: str = "") -> None:
        self.status = status
        self.attribute = ""
        self._refusal = refusal

    async def describe_time_to_live(self, **_asked: object) -> dict[str, object]:
        """The status."""
        self._refuse()
        return {"TimeToLiveDescription": {"TimeToLiveStatus": self.status}}

    async def update_time_to_live(self, **asked: Any) -> None:
        """Switches it on; an error if it is on, as AWS does."""
        self._refuse()
        if self.status != "DISABLED":
            raise _error("ValidationException")
        self.status, self.attribute = "ENABLED", asked["TimeToLiveSpecification"]["AttributeName"]

    def _refuse(self) -> None:
        if self._refusal:
            raise _error(self._refusal)


def ensure(database: FakeDatabase) -> None:
    """What `up` does with table webhooks."""
    asyncio.run(ensure_expiry(cast("Any", database), WEBHOOKS))


def test_expiry_is_switched_on_once() -> None:
    """By the attribute of the contract, and not again where it is on or about to be."""
    database = FakeDatabase("DISABLED")

    ensure(database)
    ensure(database)
    ensure(FakeDatabase("ENABLING"))

    assert (database.status, database.attribute) == ("ENABLED", "ttl")


def test_an_engine_without_expiry_is_fine_and_a_refusal_is_not() -> None:
    """Rows stay for ever on such an engine; what a database refuses for another reason is told."""
    ensure(FakeDatabase("DISABLED", "UnknownOperationException"))

    with pytest.raises(ClientError, match="AccessDenied"):
        ensure(FakeDatabase("DISABLED", "AccessDeniedException"))


def _error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "TimeToLive")
