"""The explorations, each made once a session; `--large` adds the large ones."""

import logging
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from linkmesh.local.engines import ValkeyEngine
from linkmesh.local.ports import free_port
from tests.engines import running, state_folder
from tests.model.bounds import Suite
from tests.model.search import Result, explore
from tests.model.suites import LARGE, SMALL
from tests.model.world import World

Explore = Callable[[Suite], tuple[World, Result]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Only heard when this folder is named on the command line, as `make model` does."""
    parser.addoption("--large", action="store_true", help="also the explorations of hundreds of thousands of states")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a suite runs in each."""
    if "suite" in metafunc.fixturenames:
        suites = SMALL + (LARGE if metafunc.config.getoption("--large", default=False) else ())
        metafunc.parametrize("suite", suites, ids=[suite.name for suite in suites])


@pytest.fixture(scope="session")
def explored() -> Explore:
    """Makes an exploration, or gives the one that was made."""

    @cache
    def made(suite: Suite) -> tuple[World, Result]:
        world = World(suite)
        return world, explore(world)

    return made


@pytest.fixture(autouse=True)
def no_alarms() -> Iterator[None]:
    """What the product logs of conflicts is as it should be, thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyEngine]:
    """A server for this folder alone: it is emptied before each pair."""
    with running(ValkeyEngine(state_folder(tmp_path_factory, "valkey"), free_port())) as engine:
        yield engine
