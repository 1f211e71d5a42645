"""What link_service needs of DynamoDB: links and their events, blocks of ids, accounts and their keys."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chassis.auth import Plan
from contracts.link import Link, LinkEvent, LinkKey, UserId
from contracts.link_codec import UndecodableError
from contracts.link_rows import Reservation
from link_service.domain.ids import IdBlock

READS_MAX = 100  # links of one read_many


class LinkTable(Protocol):
    """Table `links`, as its reader and as the keeper of reservations."""

    async def read(self, key: LinkKey) -> Link | Reservation | None:
        """The projection, by a consistent read [R5]. Safe to repeat."""
        ...

    def read_many(
        self, keys: Sequence[LinkKey]
    ) -> AsyncIterator[Mapping[LinkKey, Link | Reservation | UndecodableError | None]]:
        """As `read`, for at most READS_MAX different links, in parts as the database answers: each link is in one part,
        with the error where its row cannot be read. What the database leaves undone is asked for again and is never
        taken for absent; Unavailable ends the parts, and says nothing of the links that were in none. Safe to repeat.
        """
        ...

    async def has_event(self, key: LinkKey, version: int) -> bool:
        """Whether the event row of a version exists, by a consistent read. Safe to repeat."""
        ...

    async def read_event(self, key: LinkKey, version: int) -> LinkEvent | None:
        """The event that made a version, by a consistent read; None: it is not in the table, perhaps not yet. Safe to
        repeat."""
        ...

    async def list_events(self, key: LinkKey, *, first: int, count: int) -> Sequence[LinkEvent]:
        """Events from version `first` on, in order, by a consistent read: at most `count`, and fewer where they are
        large (about 1 MB), but none only if there is none. Safe to repeat."""
        ...

    async def newest_event(self, key: LinkKey) -> LinkEvent | None:
        """The event of the highest version, by a consistent read; None: there is none. Safe to repeat."""
        ...

    async def project(self, link: Link) -> bool:
        """Puts the projection, unless it has a newer version (False then) [W2]. Safe to repeat."""
        ...

    async def reserve(self, wanted: Reservation, *, over: Reservation | None) -> bool:
        """Puts a reservation, on condition that there is nothing, or (`over`) exactly that older reservation [K2].

        False: the condition does not hold. Repeating one that was stored answers False.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Link keys, each in one page only; `cursor` is where the next page begins, empty: this was the last."""

    keys: tuple[LinkKey, ...]
    cursor: str


class BadCursorError(ValueError):
    """A cursor that no page ended with."""


class LinkKeys(Protocol):
    """All links of table `links`, reserved codes among them, in an order of its own."""

    async def page(self, cursor: str, *, rows: int) -> KeyPage:
        """The links of the next `rows` rows, read consistently; perhaps none, although there are more pages. Links that
        are made meanwhile may be missing. Safe to repeat. A cursor is good for ever.

        Raises:
            BadCursorError: no page ended with this cursor.
        """
        ...


class IdCounter(Protocol):
    """The counter that blocks of ids are leased from."""

    async def lease(self, *, at_least: int) -> IdBlock | None:
        """The next block, nobody else's for ever; a lost answer only wastes ids.

        None, and nothing changed, when the counter stands below `at_least` (it was restored from a backup [K1]) or the
        code space is used up.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """An API key as it is kept; the key itself is not."""

    key_id: str
    key_hash: str
    user_id: UserId
    scopes: tuple[str, ...]
    prefix: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """What the idempotency key of a request for an API key stands for: all that the API key is derived from, beside a
    secret of the deployment's, which the table does not have."""

    body_hash: str
    salt: str
    at: datetime


class Accounts(Protocol):
    """Table `accounts`: accounts, their keys, and what requests for keys stand for."""

    async def claim_key(self, user_id: UserId, name: str, claim: KeyClaim, *, replaces_before: datetime) -> KeyClaim:
        """Stores the claim under this name unless there is one that is not from before; the one that is stored then.
        Safe to repeat."""
        ...

    async def open_account(self, user_id: UserId, plan: Plan, at: datetime) -> None:
        """Makes the account if it is new; one that exists keeps its plan. Safe to repeat."""
        ...

    async def add_key(self, key: StoredKey) -> None:
        """Stores a key; it opens the account once the call has returned. Safe to repeat."""
        ...

    async def find_key(self, key_hash: str) -> tuple[StoredKey, Plan] | None:
        """The key of a hash and the plan of its account, by consistent reads. Safe to repeat."""
        ...
