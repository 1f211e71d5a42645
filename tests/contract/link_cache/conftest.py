"""Each test of this folder runs in both worlds."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from linkmesh.local.engines import ValkeyEngine
from linkmesh.local.ports import free_port
from tests.contract.link_cache.worlds import Scenario, fake_world, real_world
from tests.engines import running, state_folder


@pytest.fixture(scope="session")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyEngine]:
    """A server for this folder alone: its tests empty it and change its maximum of memory."""
    with running(ValkeyEngine(state_folder(tmp_path_factory, "valkey"), free_port())) as engine:
        yield engine


@pytest.fixture(params=["fake", "valkey"])
def play(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario in a world of its own."""
    engine: ValkeyEngine | None = request.getfixturevalue("own_valkey") if request.param == "valkey" else None

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with real_world(engine.url) if engine else fake_world() as world:
                await scenario(world)

        asyncio.run(main())

    return run
