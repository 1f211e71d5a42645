"""Table `links` in DynamoDB."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from chassis.dynamodb import Item, batch_get_pages, dynamodb_errors
from contracts.link import Link, LinkEvent, LinkKey
from contracts.link_codec import UndecodableError
from contracts.link_rows import (
    RESERVED,
    Reservation,
    Row,
    WritableRow,
    event_from_row,
    link_from_row,
    link_to_row,
    reservation_from_row,
    reservation_to_row,
    row_key,
)
from contracts.tables import LINKS, VERSION_MAX, event_sk, link_pk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient


class DynamoDBLinkTable:
    """The port LinkTable."""

    def __init__(self, client: "DynamoDBClient", *, timeout_s: float = 2.0) -> None:
        self._client = client
        self._timeout_s = timeout_s  # of one read_many, with all that is asked again of it

    async def read(self, key: LinkKey) -> Link | Reservation | None:
        """The projection, by a consistent read.

        Raises:
            Unavailable: the database is away.
            UndecodableError: the row is not one of ours.
        """
        with dynamodb_errors():
            answer = await self._client.get_item(TableName=LINKS.name, Key=row_key(key), ConsistentRead=True)
        row = answer.get("Item")
        return None if row is None else reservation_from_row(row) or link_from_row(row)

    async def read_many(
        self, keys: Sequence[LinkKey]
    ) -> AsyncIterator[Mapping[LinkKey, Link | Reservation | UndecodableError | None]]:
        """The projections, by consistent reads, in parts as the database answers; a row that cannot be read harms no
        other.

        Raises:
            Unavailable: the database is away, hangs or throttles; what was in no part is not answered.
        """
        by_pk = {link_pk(key): key for key in keys}
        asked: list[Item] = [row_key(key) for key in keys]
        async for page in batch_get_pages(self._client, LINKS.name, asked, timeout_s=self._timeout_s):
            found: dict[LinkKey, Link | Reservation | UndecodableError | None]
            found = {by_pk[key["pk"]["S"]]: None for key in page.keys}
            for row in page.items:
                found[by_pk[row["pk"]["S"]]] = _read_row(row)
            yield found

    async def has_event(self, key: LinkKey, version: int) -> bool:
        """Whether the event row of a version exists, by a consistent read.

        Raises:
            Unavailable: the database is away.
        """
        with dynamodb_errors():
            answer = await self._client.get_item(
                TableName=LINKS.name,
                Key=row_key(key, event_sk(version)),
                ConsistentRead=True,
                ProjectionExpression="#pk",
                ExpressionAttributeNames={"#pk": "pk"},
            )
        return "Item" in answer

    async def read_event(self, key: LinkKey, version: int) -> LinkEvent | None:
        """The event that made a version, by a consistent read.

        Raises:
            Unavailable: the database is away.
            UndecodableError: the row is not one of ours.
        """
        with dynamodb_errors():
            answer = await self._client.get_item(
                TableName=LINKS.name, Key=row_key(key, event_sk(version)), ConsistentRead=True
            )
        row = answer.get("Item")
        return None if row is None else event_from_row(row)

    async def list_events(self, key: LinkKey, *, first: int, count: int) -> Sequence[LinkEvent]:
        """Events from a version on, in order, by a consistent read.

        Raises:
            Unavailable: the database is away.
            UndecodableError: a row is not one of ours.
        """
        with dynamodb_errors():
            answer = await self._client.query(
                TableName=LINKS.name,
                KeyConditionExpression="#pk = :pk AND #sk BETWEEN :first AND :last",
                ExpressionAttributeNames={"#pk": "pk", "#sk": "sk"},
                ExpressionAttributeValues=_versions(key, first=first),
                ConsistentRead=True,
                Limit=count,
            )
        return [event_from_row(row) for row in answer["Items"]]

    async def newest_event(self, key: LinkKey) -> LinkEvent | None:
        """The event of the highest version, by a consistent read.

        Raises:
            Unavailable: the database is away.
            UndecodableError: the row is not one of ours.
        """
        with dynamodb_errors():
            answer = await self._client.query(
                TableName=LINKS.name,
                KeyConditionExpression="#pk = :pk AND #sk BETWEEN :first AND :last",
                ExpressionAttributeNames={"#pk": "pk", "#sk": "sk"},
                ExpressionAttributeValues=_versions(key, first=1),
                ConsistentRead=True,
                ScanIndexForward=False,
                Limit=1,
            )
        return next((event_from_row(row) for row in answer["Items"]), None)

    async def project(self, link: Link) -> bool:
        """Puts the projection, unless it has a newer version.

        Raises:
            Unavailable: the database is away; whether it was stored is not known.
        """
        item = link_to_row(link)
        try:
            with dynamodb_errors():
                await self._client.put_item(
                    TableName=LINKS.name,
                    Item=item,
                    ConditionExpression="attribute_not_exists(#version) OR #version <= :version",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues={":version": item["version"]},
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    async def reserve(self, wanted: Reservation, *, over: Reservation | None) -> bool:
        """Puts a reservation over nothing, or over exactly that older one.

        Raises:
            Unavailable: the database is away; whether it was stored is not known.
        """
        item = reservation_to_row(wanted)
        try:
            with dynamodb_errors():
                if over is None:
                    await self._client.put_item(
                        TableName=LINKS.name,
                        Item=item,
                        ConditionExpression="attribute_not_exists(#pk)",
                        ExpressionAttributeNames={"#pk": "pk"},
                    )
                else:
                    await self._client.put_item(
                        TableName=LINKS.name,
                        Item=item,
                        ConditionExpression="#state = :reserved AND #event_id = :event_id",
                        ExpressionAttributeNames={"#state": "state", "#event_id": "event_id"},
                        ExpressionAttributeValues={":reserved": {"S": RESERVED}, ":event_id": {"S": over.event_id}},
                    )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _read_row(row: Row) -> Link | Reservation | UndecodableError | None:
    try:
        return reservation_from_row(row) or link_from_row(row)
    except UndecodableError as exc:
        return exc


def _versions(key: LinkKey, *, first: int) -> WritableRow:
    """The values of a query for the event rows of these versions."""
    return {
        ":pk": {"S": link_pk(key)},
        ":first": {"S": event_sk(first)},
        ":last": {"S": event_sk(VERSION_MAX)},
    }
