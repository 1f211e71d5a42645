"""Rows and checkpoints as items of DynamoDB table `clicks`. `v` is the version of an item's form.

A row's sort key names hour and partition, its partition key link and day, so that a query reads days. Attribute names
are short, since DynamoDB bills them: ep and off are the place in the log up to which the row is folded.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import Hour, RowId
from analytics.domain.rows import Applied, RowImage
from analytics.domain.sequences import Spool
from contracts.link import LinkKey
from contracts.tables import CLICKS_EPOCH_PK, clicks_pk, clicks_sk, clicks_state_pk, partition_sk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef as Attribute
else:
    Attribute = dict

Item = dict[str, Attribute]
_FORM = "1"


def hour_start(hour: Hour) -> datetime:
    """The first moment of an hour."""
    return datetime.fromtimestamp(hour * 3600, UTC)


def row_key(row_id: RowId) -> Item:
    """The primary key of a row."""
    start = hour_start(row_id.hour)
    return {"pk": {"S": clicks_pk(row_id.key, start)}, "sk": {"S": clicks_sk(start, row_id.partition)}}


def row_fields(image: RowImage) -> Item:
    """Everything of a row but its key."""
    return {
        "v": {"N": _FORM},
        "ep": {"N": str(image.applied.epoch)},
        "off": {"N": str(image.applied.offset)},
        "human": {"N": str(image.human)},
        "bot": {"N": str(image.bot)},
        "pre": {"N": str(image.prefetches)},
        "vis": {"B": image.visitors},
    }


def row_from(item: Item) -> RowImage:
    """The row of an item."""
    link_and_day = item["pk"]["S"].removeprefix("A#")
    link_key, _, day = link_and_day.rpartition("#")
    hour_text, _, partition = item["sk"]["S"].removeprefix("H").partition("#P")
    start = datetime.strptime(day + hour_text, "%Y%m%d%H").replace(tzinfo=UTC)
    return RowImage(
        RowId(LinkKey(link_key), Hour(int(start.timestamp()) // 3600), int(partition)),
        Applied(_number(item, "ep"), _number(item, "off")),
        human=_number(item, "human"),
        bot=_number(item, "bot"),
        prefetches=_number(item, "pre"),
        visitors=bytes(item["vis"]["B"]),
    )


def checkpoint_key(partition: int, epoch: int) -> Item:
    """The primary key of a partition's checkpoint in one epoch."""
    return {"pk": {"S": clicks_state_pk(epoch)}, "sk": {"S": partition_sk(partition)}}


def epoch_key(partition: int) -> Item:
    """The primary key of what tells a partition's newest epoch."""
    return {"pk": {"S": CLICKS_EPOCH_PK}, "sk": {"S": partition_sk(partition)}}


def checkpoint_item(checkpoint: Checkpoint) -> Item:
    """The whole item of a checkpoint; a spool is [last sequence, count]."""
    spools: dict[str, Attribute] = {
        spool_id: {"L": [{"N": str(spool.last)}, {"N": str(spool.counted)}]}
        for spool_id, spool in checkpoint.spools.items()
    }
    return checkpoint_key(checkpoint.partition, checkpoint.epoch) | {
        "v": {"N": _FORM},
        "off": {"N": str(checkpoint.offset)},
        "at": {"N": str(checkpoint.time_ms)},
        "spools": {"M": spools},
    }


def checkpoint_from(item: Item) -> Checkpoint:
    """The checkpoint of an item."""
    return Checkpoint(
        partition=int(item["sk"]["S"].removeprefix("P")),
        epoch=int(item["pk"]["S"].removeprefix("S#")),
        offset=_number(item, "off"),
        time_ms=_number(item, "at"),
        spools={
            spool_id: Spool(int(pair["L"][0]["N"]), int(pair["L"][1]["N"]))
            for spool_id, pair in item["spools"]["M"].items()
        },
    )


def epoch_from(item: Item) -> int:
    """The epoch that an item tells."""
    return _number(item, "ep")


def _number(item: Item, name: str) -> int:
    return int(item[name]["N"])
