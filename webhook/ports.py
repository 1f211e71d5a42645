"""What webhook needs from the world."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from contracts.link import EventId, UserId
from webhook.domain.deliveries import Answer, Delivery
from webhook.domain.endpoints import Account, Endpoint, EndpointId

Cursor = NewType("Cursor", str)  # where a page of due deliveries ended; opaque


class EndpointStore(Protocol):
    """The endpoints of accounts. Reads are consistent: they see every save that was acknowledged [H1].

    Raises:
        Unavailable: the database is away, hangs or throttles; a save may have happened.
    """

    async def of_accounts(self, user_ids: Collection[UserId]) -> Mapping[UserId, Account]:
        """The accounts, each with what it has; at most 100."""
        ...

    async def save(self, account: Account) -> bool:
        """Stores the account's endpoints if nobody else has since this revision was read; whether it did."""
        ...


@dataclass(frozen=True, slots=True)
class DuePage:
    """Deliveries that are due, longest first, and where the next page begins; None: this was the last."""

    deliveries: Sequence[Delivery]
    after: Cursor | None


class DeliveryStore(Protocol):
    """The deliveries, one row for an endpoint and an event.

    Raises:
        Unavailable: the database is away, hangs or throttles; a write may have happened.
    """

    async def add(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Puts rows where there are none, no two of one name; which of them it put, in order. May be repeated."""
        ...

    async def due(self, bucket: int, *, now: datetime, after: Cursor | None, limit: int) -> DuePage:
        """Pending deliveries of a bucket whose next_at has come. Eventually consistent: `claim` tells the truth."""
        ...

    async def claim(self, delivery: Delivery, *, claim: str, until: datetime) -> Delivery | None:
        """Claims a due delivery until the lease's end, if it is still as it was read; the claimed one, or None."""
        ...

    async def settle(self, delivery: Delivery) -> bool:
        """Stores what became of a claimed delivery, and ends the claim; False if the claim is no longer ours [H2]."""
        ...

    async def newest(self, endpoint_id: EndpointId, *, before: EventId | None, limit: int) -> Sequence[Delivery]:
        """Deliveries of an endpoint, newest event first, of those before an event."""
        ...


class Sender(Protocol):
    """Sends a message to a URL, once."""

    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """What came of it, within the attempt's time limit. Whatever the receiver or the network do is an answer."""
        ...


class FirstAttempts(Protocol):
    """Takes deliveries that were just stored and claimed, so that their first attempt needs no look into the table."""

    def has_room(self, endpoint_id: EndpointId) -> bool:
        """Whether one more for this endpoint would be taken now."""
        ...

    def offer(self, delivery: Delivery, endpoint: Endpoint) -> bool:
        """Takes a delivery, or does not: then it waits in the table until its lease is over. Never blocks."""
        ...
