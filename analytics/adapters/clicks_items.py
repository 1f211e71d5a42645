"""Rows and checkpoints as items of DynamoDB table `clicks`. `v` is the version of an item's form.

A row's sort key names hour and partition, its partition key link and day, so that a query reads days; an account's top
links have a row for each day and partition. Attribute names are short, since DynamoDB bills them: ep and off are the
place in the log up to which the row is folded, d is all else: one value costs half as much to send as four do.
Form 1, which had an attribute for each count and no labels, is still read.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from analytics.adapters.accounts_message import accounts_from, accounts_message
from analytics.domain.checkpoints import Checkpoint
from analytics.domain.clicks import DAY_HOURS, AnyId, Day, Hour, RowId, TopId
from analytics.domain.ledger import Accounts
from analytics.domain.rows import AnyImage, Applied, RowImage, TopImage
from analytics.domain.sequences import Spool
from contracts.link import LinkKey, UserId
from contracts.tables import CLICKS_EPOCH_PK, clicks_pk, clicks_sk, clicks_state_pk, clicks_tops_pk, partition_sk
from shortener.store.v1.click_counts_pb2 import ClickRowState, PartitionState, TopLinksState

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef as Attribute
else:
    Attribute = dict

Item = dict[str, Attribute]
_FORM = "2"
_KNOWN_MAX = 5000  # hours and days whose names are remembered


@lru_cache(maxsize=_KNOWN_MAX)
def hour_start(hour: Hour) -> datetime:
    """The first moment of an hour."""
    return datetime.fromtimestamp(hour * 3600, UTC)


@lru_cache(maxsize=_KNOWN_MAX)
def day_start(day: Day) -> datetime:
    """The first moment of a day."""
    return datetime.fromtimestamp(day * 86_400, UTC)


def row_key(row_id: AnyId) -> Item:
    """The primary key of a row."""
    if isinstance(row_id, TopId):
        pk, sk = clicks_tops_pk(row_id.user_id, day_start(row_id.day)), partition_sk(row_id.partition)
    else:
        start = hour_start(row_id.hour)
        pk, sk = clicks_pk(row_id.key, start), clicks_sk(start, row_id.partition)
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def row_fields(image: AnyImage) -> Item:
    """Everything of a row but its key."""
    return {
        "v": {"N": _FORM},
        "ep": {"N": str(image.applied.epoch)},
        "off": {"N": str(image.applied.offset)},
        "d": {"B": _state(image)},
    }


def row_from(item: Item) -> AnyImage:
    """The row of an item."""
    applied = Applied(_number(item, "ep"), _number(item, "off"))
    kind, name, day = _names(item["pk"]["S"])
    if kind == "T":
        return _top_from(item, TopId(_partition(item), UserId(name), _day(day)), applied)
    hour_text, _, partition = item["sk"]["S"].removeprefix("H").partition("#P")
    row_id = RowId(LinkKey(name), Hour(_day(day) * DAY_HOURS + int(hour_text)), int(partition))
    if "d" not in item:
        return _old_row_from(item, row_id, applied)
    state = ClickRowState.FromString(bytes(item["d"]["B"]))
    return RowImage(
        row_id,
        applied,
        human=state.human,
        bot=state.bot,
        prefetches=state.prefetches,
        visitors=state.visitors,
        labels=dict(zip(state.labels, state.clicks, strict=True)),
    )


def _state(image: AnyImage) -> bytes:
    if isinstance(image, TopImage):
        return TopLinksState(links=image.links.keys(), clicks=image.links.values()).SerializeToString()
    return ClickRowState(
        human=image.human,
        bot=image.bot,
        prefetches=image.prefetches,
        visitors=image.visitors,
        labels=image.labels.keys(),
        clicks=image.labels.values(),
    ).SerializeToString()


def _old_row_from(item: Item, row_id: RowId, applied: Applied) -> RowImage:
    return RowImage(
        row_id,
        applied,
        human=_number(item, "human"),
        bot=_number(item, "bot"),
        prefetches=_number(item, "pre"),
        visitors=bytes(item["vis"]["B"]),
    )


def _top_from(item: Item, row_id: TopId, applied: Applied) -> TopImage:
    state = TopLinksState.FromString(bytes(item["d"]["B"]))
    return TopImage(row_id, applied, dict(zip(state.links, state.clicks, strict=True)))


def checkpoint_key(partition: int, epoch: int) -> Item:
    """The primary key of a partition's checkpoint in one epoch."""
    return {"pk": {"S": clicks_state_pk(epoch)}, "sk": {"S": partition_sk(partition)}}


def epoch_key(partition: int) -> Item:
    """The primary key of what tells a partition's newest epoch."""
    return {"pk": {"S": CLICKS_EPOCH_PK}, "sk": {"S": partition_sk(partition)}}


def checkpoint_item(checkpoint: Checkpoint) -> Item:
    """The whole item of a checkpoint."""
    return checkpoint_key(checkpoint.partition, checkpoint.epoch) | {
        "v": {"N": _FORM},
        "off": {"N": str(checkpoint.offset)},
        "at": {"N": str(checkpoint.time_ms)},
        "d": {"B": accounts_message(checkpoint.accounts).SerializeToString()},
    }


def checkpoint_from(item: Item) -> Checkpoint:
    """The checkpoint of an item."""
    if "d" in item:
        accounts = accounts_from(PartitionState.FromString(bytes(item["d"]["B"])))
    else:
        accounts = Accounts(
            {
                spool_id: Spool(int(pair["L"][0]["N"]), int(pair["L"][1]["N"]))
                for spool_id, pair in item["spools"]["M"].items()
            }
        )
    return Checkpoint(
        partition=_partition(item),
        epoch=int(item["pk"]["S"].removeprefix("S#")),
        offset=_number(item, "off"),
        time_ms=_number(item, "at"),
        accounts=accounts,
    )


def epoch_from(item: Item) -> int:
    """The epoch that an item tells."""
    return _number(item, "ep")


def _names(pk: str) -> tuple[str, str, str]:
    """Kind, name and day of a row's partition key; names may have any character."""
    kind, _, rest = pk.partition("#")
    name, _, day = rest.rpartition("#")
    return kind, name, day


@lru_cache(maxsize=_KNOWN_MAX)
def _day(text: str) -> Day:
    return Day(int(datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).timestamp()) // 86_400)


def _partition(item: Item) -> int:
    return int(item["sk"]["S"].removeprefix("P"))


def _number(item: Item, name: str) -> int:
    return int(item[name]["N"])
