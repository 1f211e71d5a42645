"""The fake and the real Redis side by side: whatever is done to both, they answer alike and hold the same."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.cache import LeaseToken
from contracts.link import Link, LinkKey, LinkState
from link_service.ports import Held, Leased, Present, Verdict
from linkmesh.local.engines import ValkeyEngine
from tests.contract.link_cache.worlds import World, fake_world, mutation_of, new_link, real_world

CODES = ("twin-a", "twin-b")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["create", "custom", "change", "delete", "repeat", "lease", "release", "fill", "persisted", "expire"]
        ),
        st.sampled_from(CODES),
        st.integers(0, 3),  # which of the versions, events or tokens seen so far, the newest being 0
    ),
    max_size=25,
)


@dataclass
class Twins:
    """Two worlds, and what happened in both so far. Tokens are each world's own, at the same places."""

    worlds: tuple[World, World]
    made: list[tuple[Link, bool]] = field(default_factory=list)  # every link decided on, and whether it is remembered
    tokens: list[tuple[LeaseToken, LeaseToken]] = field(default_factory=list)

    async def both(
        self, call: Callable[[World, LeaseToken], Awaitable[object]], token: int = 0
    ) -> tuple[object, object]:
        """What both worlds answer."""
        pair = self.tokens[-1 - token] if token < len(self.tokens) else (LeaseToken(b"none"), LeaseToken(b"none"))
        first, second = self.worlds
        return await call(first, pair[0]), await call(second, pair[1])

    def link(self, code: str, back: int) -> Link | None:
        """One of the last links of a code."""
        known = [link for link, _ in self.made if link.short_code == code]
        return known[-1 - back] if back < len(known) else None

    async def step(self, what: str, code: str, back: int) -> None:
        """One operation on both; they must agree."""
        key = LinkKey(code)
        if what == "lease":
            await self._lease(key)
            return
        if what == "release":
            await self.both(lambda world, token: world.cache.release(key, token), back)
            return
        answers = await self._change(what, code, back)
        assert answers[0] == answers[1], (what, answers)

    async def _lease(self, key: LinkKey) -> None:
        answers = await self.both(lambda world, _: world.cache.lease(key, lease_ms=60_000))
        match answers:
            case (Leased(first), Leased(second)):
                self.tokens.append((first, second))
            case (Present() | Held(), _):
                assert answers[0] == answers[1]
            case _:
                raise AssertionError(answers)

    async def _change(self, what: str, code: str, back: int) -> tuple[object, object]:
        known = self.link(code, back)
        if what in ("create", "custom"):
            return await self._mutate(new_link(code), generated=what == "create", token=back, remember=back == 0)
        if known is None:
            return None, None
        if what in ("change", "delete"):
            state = LinkState.DELETED if what == "delete" else LinkState.ACTIVE
            wanted = new_link(code, version=known.version + 1, state=state)
            return await self._mutate(wanted, generated=False, token=back, remember=back == 1)
        if what == "repeat":
            return await self._mutate(known, generated=known.version == 1, token=back, remember=True)
        if what == "fill":
            return await self.both(lambda world, token: world.cache.fill(token, known), back)
        if what == "persisted":
            return await self.both(lambda world, _: world.persisted(known))
        return await self.both(lambda world, _: expire_if_it_may(world, known.key))

    async def _mutate(self, link: Link, *, generated: bool, token: int, remember: bool) -> tuple[object, object]:
        self.made.append((link, remember))

        async def mutate(world: World, held: LeaseToken) -> Verdict:
            return await world.cache.mutate(mutation_of(link, generated=generated, token=held, remember=remember))

        return await self.both(mutate, token)

    async def agree(self) -> None:
        """Values, expiries, leases, results and outbox are the same in both."""
        for code in CODES:
            key = LinkKey(code)
            values = await self.both(lambda world, _, key=key: world.cache.get(key))  # type: ignore[misc]  # the key of this round
            assert values[0] == values[1]
            held = await self.both(lambda world, _, key=key: world.lease_is_held(key))  # type: ignore[misc]  # the same
            assert held[0] == held[1]
            if values[0] is not None:
                ttls = [await world.ttl_s(key) for world in self.worlds]
                assert ttls[0] == pytest.approx(ttls[1], abs=30) if ttls[0] is not None else ttls[1] is None
        for link, _ in self.made:
            seen = await self.both(lambda world, _, link=link: world.cache.seen(link.key, link.event_id))  # type: ignore[misc]  # the same
            assert seen[0] == seen[1]
        entries = [[(e.bucket, e.data) for e in await world.outbox.read(wait_s=0.001)] for world in self.worlds]
        assert entries[0] == entries[1]


async def expire_if_it_may(world: World, key: LinkKey) -> bool:
    if await world.cache.get(key) is None or await world.ttl_s(key) is None:
        return False
    await world.expire(key)
    return True


@pytest.mark.rule("R1", "R2", "R3", "R4", "R5", "R6")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_fake_and_the_real_answer_alike(own_valkey: ValkeyEngine, steps: list[tuple[str, str, int]]) -> None:
    """The rules are written twice, in Lua and in Python: any sequence of calls ends alike in both."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            real = await stack.enter_async_context(real_world(own_valkey.url))
            fake = await stack.enter_async_context(fake_world())
            twins = Twins((fake, real))
            for what, code, back in steps:
                await twins.step(what, code, back)
            await twins.agree()

    asyncio.run(main())
