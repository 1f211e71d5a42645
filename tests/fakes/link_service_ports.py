"""The stores of link_service in memory; tests/contract/test_link_service_stores.py proves them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from chassis.auth import Plan
from chassis.errors import Unavailable
from contracts.codes import ID_BLOCK, SPACE
from contracts.link import Link, LinkEvent, LinkKey, UserId
from contracts.link_codec import UndecodableError
from contracts.link_rows import Reservation
from link_service.domain.ids import IdBlock
from link_service.domain.intents import Intent
from link_service.ports import READS_MAX, BadCursorError, KeyClaim, KeyPage, StoredKey


@dataclass
class Switch:
    """Whether a dependency is there."""

    away: bool = False

    def answer(self) -> None:
        """Raises if nobody answers."""
        if self.away:
            raise Unavailable("unavailable", "Nobody answers.", retry_after_s=1)


async def _at_once() -> None:
    await asyncio.sleep(0)


@dataclass
class FakeLinkTable(Switch):
    """The port LinkTable."""

    meta: dict[LinkKey, Link | Reservation] = field(default_factory=dict)
    events: set[tuple[LinkKey, int]] = field(default_factory=set)
    rows: dict[tuple[LinkKey, int], LinkEvent] = field(default_factory=dict)
    reads: int = 0
    batches: list[tuple[LinkKey, ...]] = field(default_factory=list)
    part: int = READS_MAX
    network: Callable[[], Awaitable[None]] = _at_once  # the way back of a read_many's answer

    async def read(self, key: LinkKey) -> Link | Reservation | None:
        self.answer()
        self.reads += 1
        return self.meta.get(key)

    async def read_many(
        self, keys: Sequence[LinkKey]
    ) -> AsyncIterator[Mapping[LinkKey, Link | Reservation | UndecodableError | None]]:
        """In parts of `part`: what the database leaves undone comes later."""
        assert len(set(keys)) == len(keys) <= READS_MAX
        self.answer()
        self.batches.append(tuple(keys))
        self.reads += 1
        found = {key: self.meta.get(key) for key in keys}
        await self.network()
        for start in range(0, len(keys), self.part):
            yield {key: found[key] for key in keys[start : start + self.part]}

    async def has_event(self, key: LinkKey, version: int) -> bool:
        self.answer()
        return (key, version) in self.events or (key, version) in self.rows

    async def read_event(self, key: LinkKey, version: int) -> LinkEvent | None:
        self.answer()
        self.reads += 1
        return self.rows.get((key, version))

    async def list_events(self, key: LinkKey, *, first: int, count: int) -> Sequence[LinkEvent]:
        self.answer()
        self.reads += 1
        found = sorted(version for name, version in self.rows if name == key and version >= first)
        return [self.rows[key, version] for version in found[:count]]

    async def newest_event(self, key: LinkKey) -> LinkEvent | None:
        self.answer()
        self.reads += 1
        versions = [version for name, version in self.rows if name == key]
        return self.rows[key, max(versions)] if versions else None

    async def project(self, link: Link) -> bool:
        self.answer()
        found = self.meta.get(link.key)
        if isinstance(found, Link) and found.version > link.version:
            return False
        self.meta[link.key] = link
        return True

    async def reserve(self, wanted: Reservation, *, over: Reservation | None) -> bool:
        self.answer()
        found = self.meta.get(wanted.key)
        found_id = None if found is None else found.event_id
        holds = isinstance(found, Reservation | None) and found_id == (over.event_id if over else None)
        if holds:
            self.meta[wanted.key] = wanted
        return holds


@dataclass
class FakeLinkKeys:
    """The port LinkKeys on a FakeLinkTable: a row for each projection and each event, in the order of their names."""

    table: FakeLinkTable

    async def page(self, cursor: str, *, rows: int) -> KeyPage:
        self.table.answer()
        if cursor and "#" not in cursor:
            raise BadCursorError("not a cursor of ours")
        names = [(key, version) for key, version in self.table.rows] + [(key, 0) for key in self.table.meta]
        left = sorted(f"{key}#{version:06d}" for key, version in names if f"{key}#{version:06d}" > cursor)
        page, before = left[:rows], cursor.rpartition("#")[0]
        keys = dict.fromkeys(name.rpartition("#")[0] for name in page)
        keys.pop(before, None)
        return KeyPage(tuple(LinkKey(key) for key in keys), page[-1] if len(left) > rows else "")


@dataclass
class FakeIdCounter(Switch):
    """The port IdCounter."""

    next: int = 0

    async def lease(self, *, at_least: int) -> IdBlock | None:
        self.answer()
        if not at_least <= self.next <= SPACE - ID_BLOCK:
            return None
        block = IdBlock(self.next)
        self.next += ID_BLOCK
        return block


@dataclass
class FakeCacheServer(Switch):
    """The port CacheServer."""

    mark: int = 0
    run: str = "run-1"
    oldest: Callable[[LinkKey], datetime | None] = lambda _: None

    async def ids_high(self) -> int:
        self.answer()
        return self.mark

    async def raise_ids_high(self, mark: int) -> None:
        self.answer()
        self.mark = max(self.mark, mark)

    async def run_id(self) -> str:
        self.answer()
        return self.run

    async def oldest_in_outbox(self, key: LinkKey) -> datetime | None:
        self.answer()
        return self.oldest(key)


@dataclass
class FakeEventLog(Switch):
    """The port EventLog."""

    oldest: datetime | None = None

    async def oldest_unwritten(self, key: LinkKey) -> datetime | None:
        self.answer()
        return self.oldest


@dataclass
class FakeIntents(Switch):
    """The port Intents; nothing expires by itself."""

    stored: dict[tuple[UserId, str], Intent] = field(default_factory=dict)
    carriers: dict[tuple[UserId, str], int] = field(default_factory=dict)

    async def begin(self, user_id: UserId, idempotency_key: str, intent: Intent) -> Intent:
        self.answer()
        name = (user_id, idempotency_key)
        self.stored.setdefault(name, intent)
        return self._carried(name, intent)

    async def swap(self, user_id: UserId, idempotency_key: str, *, old: Intent, new: Intent) -> Intent | None:
        self.answer()
        name = (user_id, idempotency_key)
        if name not in self.stored:
            return None
        if self.stored[name] == old:
            self.stored[name], self.carriers[name] = new, 0
        return self._carried(name, new)

    async def find(self, user_id: UserId, idempotency_key: str) -> Intent | None:
        self.answer()
        return self.stored.get((user_id, idempotency_key))

    async def give_up(self, user_id: UserId, idempotency_key: str, intent: Intent) -> bool:
        self.answer()
        name = (user_id, idempotency_key)
        if self.stored.get(name) != intent:
            return False
        self.carriers[name] -= 1
        if self.carriers[name] > 0:
            return False
        del self.stored[name]
        return True

    def _carried(self, name: tuple[UserId, str], mine: Intent) -> Intent:
        stored = self.stored[name]
        if stored.body_hash == mine.body_hash:
            self.carriers[name] = self.carriers.get(name, 0) + 1
        return stored


@dataclass
class FakeAccounts(Switch):
    """The port Accounts."""

    plans: dict[UserId, Plan] = field(default_factory=dict)
    keys: dict[str, StoredKey] = field(default_factory=dict)
    claims: dict[tuple[UserId, str], KeyClaim] = field(default_factory=dict)
    asked: int = 0

    async def open_account(self, user_id: UserId, plan: Plan, at: datetime) -> None:
        self.answer()
        self.plans.setdefault(user_id, plan)

    async def claim_key(self, user_id: UserId, name: str, claim: KeyClaim, *, replaces_before: datetime) -> KeyClaim:
        self.answer()
        stored = self.claims.get((user_id, name))
        if stored is None or stored.at < replaces_before:
            stored = self.claims[user_id, name] = claim
        return stored

    async def add_key(self, key: StoredKey) -> None:
        self.answer()
        self.keys[key.key_hash] = key

    async def find_key(self, key_hash: str) -> tuple[StoredKey, Plan] | None:
        self.asked += 1
        self.answer()
        key = self.keys.get(key_hash)
        return None if key is None else (key, self.plans.get(key.user_id, Plan.FREE))
