"""Stores with one safeguard off, for tests/model/mutants.py."""

from collections.abc import Sequence
from dataclasses import replace

from contracts.cache import CACHE_TTL_S, LeaseToken, Mutation
from contracts.link import Link, UserId
from contracts.link_rows import Reservation
from link_service.domain.intents import Intent
from link_service.ports import Verdict
from tests.fakes.link_cache import FakeLinkCache, FakeRedis
from tests.fakes.link_service_ports import FakeIntents, FakeLinkTable
from tests.fakes.writer_link_table import FakeLinkTable as FakeRows
from writer.domain import Result

# ---------------------------------------------------------------- Redis


class UnversionedPersisted(FakeLinkCache):
    """Any mark of writer gives the entry an expiry."""

    async def persisted(self, link: Link) -> None:
        stored = self.redis.value(link.key)
        if stored is not None:
            self.redis.values[link.key] = (stored, CACHE_TTL_S)


class PersistedOnAbsent(FakeLinkCache):
    """writer's mark puts an absent entry back."""

    async def persisted(self, link: Link) -> None:
        if self.redis.value(link.key) is None:
            self.redis.store(link, CACHE_TTL_S)
        else:
            await super().persisted(link)


class FillWithoutLease(FakeLinkCache):
    """Whatever was read is filled in where nothing is stored."""

    async def fill(self, token: LeaseToken, link: Link) -> Link:
        if self.redis.value(link.key) is None:
            self.redis.store(link, CACHE_TTL_S)
        return self.redis.value(link.key) or link


class LeaseSurvivesWrite(FakeRedis):
    """A write leaves the lease where it is."""

    def store(self, link: Link, ttl_s: float | None) -> None:
        lease = self.leases.get(link.key)
        super().store(link, ttl_s)
        if lease is not None:
            self.leases[link.key] = lease


class LeaseSurvivesFill(FakeLinkCache):
    """So does a fill."""

    async def fill(self, token: LeaseToken, link: Link) -> Link:
        lease = self.redis.leases.get(link.key)
        stored = await super().fill(token, link)
        if lease is not None:
            self.redis.leases[link.key] = lease
        return stored


class NewerOrEqual(FakeLinkCache):
    """A version is set if it is as new as the stored one, instead of being the next one of exactly its base."""

    async def mutate(self, mutation: Mutation) -> Verdict:
        link = mutation.event.link
        stored, until = self.redis.values.get(link.key, (None, None))
        if stored and stored.event_id != link.event_id and stored.version == link.version:
            self.redis.values[link.key] = (replace(stored, version=mutation.base_version), until)
        verdict = await super().mutate(mutation)
        if stored and self.redis.values[link.key][0].event_id == stored.event_id:
            self.redis.values[link.key] = (stored, until)
        return verdict


class AbsentNeedsNoLease(FakeLinkCache):
    """A change of an absent entry is taken without a lease."""

    async def mutate(self, mutation: Mutation) -> Verdict:
        if self.redis.value(mutation.event.link.key) is None:
            token = LeaseToken(b"granted by itself")
            self.redis.leases[mutation.event.link.key] = (token, 1.0)
            mutation = replace(mutation, token=token)
        return await super().mutate(mutation)


class KeepsExpiry(FakeRedis):
    """A change leaves the expiry of the entry as it was."""

    def store(self, link: Link, ttl_s: float | None) -> None:
        _, until = self.values.get(link.key, (None, None))
        super().store(link, ttl_s if ttl_s is not None else until)


class NeverLate(FakeLinkCache):
    """No limit to when an event may be applied."""

    async def mutate(self, mutation: Mutation) -> Verdict:
        return await super().mutate(replace(mutation, not_after=None))


class ForgetsResults(FakeLinkCache):
    """The result of an event is not kept."""

    async def mutate(self, mutation: Mutation) -> Verdict:
        return await super().mutate(replace(mutation, remember=False))


class GivenUpByAny(FakeIntents):
    """Whoever is refused frees the idempotency key, though others carry it."""

    async def give_up(self, user_id: UserId, idempotency_key: str, intent: Intent) -> bool:
        return self.stored.pop((user_id, idempotency_key), None) is not None


class AlwaysNewIntent(FakeIntents):
    """Each call under an idempotency key stands for an event of its own."""

    async def begin(self, user_id: UserId, idempotency_key: str, intent: Intent) -> Intent:
        self.stored[user_id, idempotency_key] = intent
        return await super().begin(user_id, idempotency_key, intent)


# ---------------------------------------------------------------- the table


class ReservesOverAnything(FakeLinkTable):
    """The put of a reservation has no condition."""

    async def reserve(self, wanted: Reservation, *, over: Reservation | None) -> bool:
        self.meta[wanted.key] = wanted
        return True


class ProjectsAnything(FakeRows):
    """A projection moves to whatever version comes."""

    async def update_links(self, links: Sequence[Link]) -> list[Result]:
        for link in links:
            self.links[link.key] = link
        return [Result.STORED for _ in links]
