"""All link keys of table `links`, page by page."""

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

from chassis.dynamodb import dynamodb_errors
from contracts.link import LinkKey
from contracts.link_rows import WritableRow
from contracts.tables import LINKS, link_pk
from link_service.ports import BadCursorError, KeyPage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

_PREFIX = link_pk(LinkKey(""))


class DynamoDBLinkKeys:
    """The port LinkKeys: a scan, which has the rows of a link beside each other."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client

    async def page(self, cursor: str, *, rows: int) -> KeyPage:
        """The links of the next rows.

        Raises:
            BadCursorError: no page ended with that cursor.
            Unavailable: the database is away.
        """
        start = _start(cursor)
        with dynamodb_errors():
            if start is None:
                answer = await self._client.scan(
                    TableName=LINKS.name, Limit=rows, ConsistentRead=True, ProjectionExpression="pk"
                )
            else:
                answer = await self._client.scan(
                    TableName=LINKS.name,
                    Limit=rows,
                    ConsistentRead=True,
                    ProjectionExpression="pk",
                    ExclusiveStartKey=start,
                )
        found = dict.fromkeys(row["pk"]["S"] for row in answer["Items"])
        if start is not None:
            found.pop(start["pk"]["S"], None)  # the page before had it
        keys = tuple(LinkKey(pk.removeprefix(_PREFIX)) for pk in found)
        end = answer.get("LastEvaluatedKey")
        return KeyPage(keys, "" if not end else _cursor(end))


def _cursor(row: "Mapping[str, AttributeValueTypeDef]") -> str:
    return urlsafe_b64encode(json.dumps([row["pk"]["S"], row["sk"]["S"]]).encode()).decode()


def _start(cursor: str) -> WritableRow | None:
    if not cursor:
        return None
    try:
        match json.loads(urlsafe_b64decode(cursor.encode())):
            case [str(pk), str(sk)] if pk.startswith(_PREFIX) and sk:
                return {"pk": {"S": pk}, "sk": {"S": sk}}
    except (binascii.Error, ValueError):
        pass
    raise BadCursorError("not a cursor of ours")
