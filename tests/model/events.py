"""The one link that all explorations are about, who wants what of it, and the events that are there before them."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from chassis.kafka.record import Record
from contracts.link import EventId, Link, LinkEvent, UserId, link_key
from contracts.link_codec import encode_event, event_type_name
from contracts.link_rows import Reservation
from link_service.domain import changes, links
from link_service.domain.changes import Refusal, Revision
from link_service.domain.destinations import policy_for
from link_service.domain.links import Terms, Who, Wish
from tests.fakes.kafka_time import START

CODE = "code-1"
KEY = link_key(CODE)
ADA, EVE = UserId("ada"), UserId("eve")
IDS_EACH = 16  # event ids and codes that one actor may draw
_POLICY = policy_for("https://go.example.com", allow_private=False)


@dataclass(frozen=True, kw_only=True)
class Client:
    """A call by an account. Clients with the same `request` send the same request again under one idempotency key."""

    name: str
    does: str  # create, custom, update, delete, restore or read
    user_id: UserId = ADA
    request: str = ""
    if_version: int = 0

    @property
    def group(self) -> str:
        """Those whose calls are one request."""
        return self.request or self.name


def event_id_of(number: int) -> EventId:
    """The event id of a number; `number_of` is the inverse."""
    return EventId(str(UUID(int=(7 << 76) | (1 << 63) | number)))


def number_of(event_id: str) -> int:
    """The number of an event id."""
    return UUID(event_id).int & 0xFFFF


def actor_of(event_id: EventId) -> int:
    """Whose event it is: 0 for those before the beginning, then the actors in order."""
    return number_of(event_id) // IDS_EACH


def decision_of(client: Client) -> Callable[[Link, Who], LinkEvent | Refusal]:
    """What a client wants of the link as it is. An update sets the title to the name of its request."""

    def decide(current: Link, who: Who) -> LinkEvent | Refusal:
        if client.does == "delete":
            return links.delete(current, who=who, if_version=client.if_version, now=START)
        if client.does == "restore":
            return changes.restore(current, who=who, if_version=client.if_version, now=START)
        assert client.does == "update", client
        revision = Revision(fields=frozenset({"title"}), title=client.group)
        return changes.update(current, revision, who=who, if_version=client.if_version, now=START, policy=_POLICY)

    return decide


def first_event(user_id: UserId = ADA) -> LinkEvent:
    """The creation of the link, before the beginning."""
    return links.create(terms_of(CODE), CODE, who=Who(user_id, event_id_of(0)), now=START)


def next_event(event: LinkEvent, *, does: str, number: int = 1) -> LinkEvent:
    """A change of the link, before the beginning, by the event of this number."""
    decide = decision_of(Client(name="before", does=does, user_id=event.user_id))
    made = decide(event.link, Who(event.user_id, event_id_of(number)))
    assert isinstance(made, LinkEvent)
    return made


def record_of(event: LinkEvent) -> Record:
    """The record of an event."""
    return Record(
        topic="links-events",
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=event.link.key.encode(),
        value=encode_event(event),
        headers=(("ce_type", event_type_name(event.type).encode()),),
    )


def reservation_of(event: LinkEvent) -> Reservation:
    """What its creator reserved, when Redis was at its first run."""
    return Reservation(
        key=event.link.key, user_id=event.user_id, event_id=event.event_id, at=START, redis_run_id="run-1"
    )


def terms_of(code: str) -> Terms:
    """The wish for a link under this code; empty: under any."""
    terms = links.check(Wish(long_url="https://example.org/", custom_code=code), now=START, policy=_POLICY)
    assert isinstance(terms, Terms)
    return terms
