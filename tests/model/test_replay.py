"""The model's Redis is Redis: each call at each state that was met ends alike on a real server."""

import asyncio

import pytest

from chassis.redis import open_redis
from linkmesh.local.engines import ValkeyEngine
from tests.model.conftest import Explore
from tests.model.mutants import MUTANTS
from tests.model.replay import Pair, Replay, pairs_of
from tests.model.search import explore
from tests.model.suites import SMALL

pytestmark = pytest.mark.timeout(600)


def differences(engine: ValkeyEngine, pairs: list[Pair]) -> list[str]:
    async def main() -> list[str]:
        async with open_redis(engine.url, timeout_s=60) as client:
            return await Replay(client).differences(pairs)

    return asyncio.run(main())


@pytest.mark.rule("R1", "R2", "R3", "R4", "R5", "O1", "I1", "I3")
def test_every_call_at_every_state_ends_alike_on_valkey(explored: Explore, own_valkey: ValkeyEngine) -> None:
    """The library, the scripts and the adapters give the model's reply and leave the model's state, for each pair."""
    pairs = pairs_of(world for world, _ in map(explored, SMALL))

    found = differences(own_valkey, pairs)

    assert len(pairs) > 1000
    assert not found, f"{len(found)} of {len(pairs)} pairs differ:\n" + "\n".join(found[:10])


@pytest.mark.parametrize("name", ["fill without a lease", "change keeps the old expiry", "results not kept"])
def test_a_model_that_is_wrong_is_noticed(name: str, own_valkey: ValkeyEngine) -> None:
    """The replay can fail: a reply, an expiry or a result that Redis would not give is a difference."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    world = mutant.on(next(suite for suite in SMALL if suite.name == mutant.suite))
    explore(world)

    assert differences(own_valkey, pairs_of([world]))
