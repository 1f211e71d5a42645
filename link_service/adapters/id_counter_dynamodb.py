"""The counter of ids: item `ids` of table `counters`, whose `next` is the first id nobody has leased."""

from typing import TYPE_CHECKING

from chassis.dynamodb import dynamodb_errors
from contracts.codes import ID_BLOCK, SPACE
from contracts.tables import COUNTERS, META
from link_service.domain.ids import IdBlock

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient

_ITEM = "ids"


class DynamoDBIdCounter:
    """The port IdCounter."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._client = client

    async def lease(self, *, at_least: int) -> IdBlock | None:
        """The next block; None when the counter stands below `at_least`, or the code space is used up.

        Raises:
            Unavailable: the database is away; a block may be wasted.
        """
        condition = "#next BETWEEN :least AND :most" if at_least else "attribute_not_exists(#next) OR #next <= :most"
        values = {":block": {"N": str(ID_BLOCK)}, ":most": {"N": str(SPACE - ID_BLOCK)}}
        if at_least:
            values[":least"] = {"N": str(at_least)}
        try:
            with dynamodb_errors():
                answer = await self._client.update_item(
                    TableName=COUNTERS.name,
                    Key={"pk": {"S": _ITEM}, "sk": {"S": META}},
                    UpdateExpression="ADD #next :block",
                    ConditionExpression=condition,
                    ExpressionAttributeNames={"#next": "next"},
                    ExpressionAttributeValues=values,
                    ReturnValues="UPDATED_NEW",
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return None
        return IdBlock(int(answer["Attributes"]["next"]["N"]) - ID_BLOCK)
