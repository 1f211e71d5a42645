"""Rows of table `links` as DynamoDB items (the low-level AttributeValue form), shared by link_service and writer.

META is the projection, every attribute readable by name; absent values are stored as NULL so that one UPDATE statement
sets all of them. A custom code that is spoken for but not yet created is a META row in state `reserved`, without a
version [K2].
E#<version> is an event: its bytes as they went over Kafka, and beside them what conditions and people need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from contracts.link import EventId, Link, LinkEvent, LinkKey, LinkState, UserId, link_key
from contracts.link_codec import UndecodableError, decode_event, event_type_name
from contracts.tables import META, event_sk, link_pk, owner_pk

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef as Attribute
else:
    Attribute = dict

Row = Mapping[str, Attribute]
WritableRow = dict[str, Attribute]

RESERVED = "reserved"
_TIMES = ("created_at", "updated_at", "deleted_at", "expires_at", "starts_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A custom code that somebody is about to create [K2]."""

    key: LinkKey
    user_id: UserId
    event_id: EventId
    at: datetime
    redis_run_id: str


def row_key(key: LinkKey, sk: str = META) -> WritableRow:
    """The primary key of a link's row."""
    return {"pk": {"S": link_pk(key)}, "sk": {"S": sk}}


def link_to_row(link: Link) -> WritableRow:
    """The META row of a link."""
    row = row_key(link.key)
    row |= {
        "short_code": {"S": link.short_code},
        "domain": _text(link.domain),
        "long_url": {"S": link.long_url},
        "user_id": {"S": link.user_id},
        "owner": {"S": owner_pk(link.user_id)},  # index by_owner
        "created": {"S": f"{_time(link.created_at)}#{link.short_code}"},  # index by_owner
        "version": {"N": str(link.version)},
        "event_id": {"S": link.event_id},
        "state": {"S": link.state.value},
        "is_custom": {"BOOL": link.is_custom},
        "redirect_status": {"N": str(link.redirect_status)},
        "title": _text(link.title),
        "tags": {"L": [{"S": tag} for tag in link.tags]},
        "restores_to": _text("" if link.restores_to is LinkState.ACTIVE else link.restores_to.value),
    }
    for name in _TIMES:
        value: datetime | None = getattr(link, name)
        row[name] = {"S": _time(value)} if value is not None else {"NULL": True}
    return row


def link_from_row(row: Row) -> Link | None:
    """The link of a META row; None for a reservation.

    Raises:
        UndecodableError: an attribute is missing or malformed.
    """
    if row.get("state", {}).get("S") == RESERVED:
        return None
    try:
        times = {name: _moment(row.get(name)) for name in _TIMES}
        created_at, updated_at = times["created_at"], times["updated_at"]
        if created_at is None or updated_at is None:
            raise UndecodableError("a link's row needs created_at and updated_at")
        return Link(
            short_code=row["short_code"]["S"],
            domain=row.get("domain", {}).get("S", ""),
            long_url=row["long_url"]["S"],
            user_id=UserId(row["user_id"]["S"]),
            version=int(row["version"]["N"]),
            event_id=EventId(row["event_id"]["S"]),
            state=LinkState(row["state"]["S"]),
            is_custom=row["is_custom"]["BOOL"],
            redirect_status=int(row["redirect_status"]["N"]),
            title=row.get("title", {}).get("S", ""),
            tags=tuple(tag["S"] for tag in row.get("tags", {}).get("L", ())),
            restores_to=LinkState(row.get("restores_to", {}).get("S", LinkState.ACTIVE.value)),
            created_at=created_at,
            updated_at=updated_at,
            deleted_at=times["deleted_at"],
            expires_at=times["expires_at"],
            starts_at=times["starts_at"],
        )
    except (KeyError, ValueError) as exc:
        raise UndecodableError("a link's row lacks an attribute or has a malformed one") from exc


def reservation_to_row(reservation: Reservation) -> WritableRow:
    """The META row of a reservation: no version, so that the writer takes it over, and no place in by_owner."""
    return row_key(reservation.key) | {
        "state": {"S": RESERVED},
        "user_id": {"S": reservation.user_id},
        "event_id": {"S": reservation.event_id},
        "reserved_at": {"S": _time(reservation.at)},
        "redis_run_id": {"S": reservation.redis_run_id},
    }


def reservation_from_row(row: Row) -> Reservation | None:
    """The reservation of a META row; None for a link.

    Raises:
        UndecodableError: an attribute is missing or malformed.
    """
    if row.get("state", {}).get("S") != RESERVED:
        return None
    try:
        return Reservation(
            key=LinkKey(row["pk"]["S"].removeprefix("L#")),
            user_id=UserId(row["user_id"]["S"]),
            event_id=EventId(row["event_id"]["S"]),
            at=datetime.fromisoformat(row["reserved_at"]["S"]),
            redis_run_id=row["redis_run_id"]["S"],
        )
    except (KeyError, ValueError) as exc:
        raise UndecodableError("a reservation lacks an attribute or has a malformed one") from exc


def event_to_row(event: LinkEvent, data: bytes) -> WritableRow:
    """The row of an event; `data` is the event as it was encoded first, kept to the byte."""
    return row_key(link_key(event.link.short_code, event.link.domain), event_sk(event.version)) | {
        "event_id": {"S": event.event_id},
        "type": {"S": event_type_name(event.type)},
        "at": {"S": _time(event.at)},
        "user_id": {"S": event.user_id},
        "trace_id": _text(event.trace_id),
        "event": {"B": data},
    }


def event_from_row(row: Row) -> LinkEvent:
    """The event of a row.

    Raises:
        UndecodableError: an attribute is missing, or the bytes are not an event.
    """
    try:
        return decode_event(row["type"]["S"], bytes(row["event"]["B"]))
    except (KeyError, TypeError) as exc:
        raise UndecodableError("an event's row lacks an attribute") from exc


def _text(value: str) -> Attribute:
    return {"S": value} if value else {"NULL": True}


def _time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, so that texts sort as times do."""
    return moment.isoformat(timespec="microseconds")


def _moment(attribute: Attribute | None) -> datetime | None:
    text = (attribute or {}).get("S")
    return datetime.fromisoformat(text) if text else None
