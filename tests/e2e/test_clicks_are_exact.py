"""Every visit that was answered is counted, and none twice, whatever is killed, stopped or away under load [P4]."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from linkmesh.client import Problem, Unreachable
from linkmesh.local.reconciling import Figures, as_owner, reconcile
from tests.e2e.visitors import CONNECTIONS, Books, visiting
from tests.e2e.waiting import eventually
from tests.system import RunningSystem, started_system

LINKS = 12  # over as many partitions as there are, more or less
KILLS = 10


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of this module's own, as production runs it: no request's trace is kept, so the fast way is taken."""
    settings = {"LINKMESH_ENVIRONMENT": "production", "LINKMESH_TRACE_RATIO": "0"}
    with started_system(tmp_path_factory.mktemp("clicks"), traces=False, settings=settings) as running:
        yield running


@pytest.fixture
def codes(system: RunningSystem) -> Sequence[str]:
    """Links that nobody followed yet."""
    with system.client() as client:
        return [str(client.create_link(f"https://example.org/{number}")["short_code"]) for number in range(LINKS)]


def counted(system: RunningSystem, codes: Sequence[str]) -> dict[str, int]:
    """The clicks of each link, by the API; -1 while it cannot tell."""
    found = dict.fromkeys(codes, -1)
    with system.client() as client, contextlib.suppress(Problem, Unreachable):
        for code in codes:
            clicks = client.stats(code)["clicks"]
            assert isinstance(clicks, dict)
            found[code] = int(clicks["total"])
    return found


def settled(system: RunningSystem, codes: Sequence[str], books: Books) -> dict[str, int]:
    """The counts once all that was answered is in them, and nothing has come for a second: what would come twice."""
    last, since = dict.fromkeys(codes, -1), time.monotonic()

    def ask() -> dict[str, int] | None:
        nonlocal last, since
        found = counted(system, codes)
        if found != last:
            last, since = found, time.monotonic()
        complete = all(found[code] >= books.received[code] for code in codes)
        return found if complete and time.monotonic() - since > 1 else None

    return eventually(ask, timeout_s=60)


def accounts(system: RunningSystem) -> Figures:
    """What all spools together tell, once nothing of them is on its way [A10]: the same for a second. The visit by
    which the system was found to be up may not have been told of at the first look.
    """

    async def ask() -> Figures:
        target = f"127.0.0.1:{system.options.ports['analytics-grpc']}"
        async with as_owner(system.state, target) as call, asyncio.timeout(120):
            found = (await reconcile(call, wait_s=60)).sums
            while True:
                await asyncio.sleep(1)
                again = (await reconcile(call, wait_s=60)).sums
                if again == found:
                    return found
                found = again

    return asyncio.run(ask())


def balanced(system: RunningSystem, clicks: dict[str, int], before: Figures) -> None:
    """What the spools hold is what was counted: no gap, no drop, no letter."""
    now = accounts(system)
    assert (now.difference, now.missing, now.buried, now.dropped) == (0, 0, 0, 0), now
    assert now.recorded - before.recorded == sum(clicks.values()), now


def answered(books: Books, more: int) -> None:
    """Returns when so many more visits were answered."""
    target = books.received.total() + more
    eventually(lambda: books.received.total() >= target, timeout_s=60)


def stopped(system: RunningSystem, name: str, seconds: float) -> None:
    """SIGSTOP for so long."""
    system.pause(name)
    threading.Event().wait(seconds)
    system.resume(name)


def replaced(system: RunningSystem, name: str) -> None:
    """kill -9, and another process at once: the supervisor's own pauses grow with each crash."""
    system.kill(name, stay_down=True)
    system.start(name)


@pytest.mark.rule("P4", "S1", "S2", "S3", "S4")
def test_a_gateway_that_is_killed_loses_and_doubles_nothing(system: RunningSystem, codes: Sequence[str]) -> None:
    """kill -9 ten times under load: what it had answered is in its spools, which the next one drains."""
    before = accounts(system)
    with visiting(system.options.ports["gateway"], codes) as books:
        for _ in range(KILLS):
            answered(books, 300)
            replaced(system, "gateway")
        answered(books, 300)
    clicks = settled(system, codes, books)
    books.judge(clicks)
    balanced(system, clicks, before)
    assert not set(books.other) - {503}, books.other
    assert books.broken <= CONNECTIONS * KILLS


@pytest.mark.rule("P4", "S3")
def test_a_gateway_that_is_stopped_loses_and_doubles_nothing(system: RunningSystem, codes: Sequence[str]) -> None:
    """SIGSTOP ten times under load, once for longer than a broker waits for an acknowledged batch to be asked for."""
    before = accounts(system)
    with visiting(system.options.ports["gateway"], codes) as books:
        for number in range(KILLS):
            answered(books, 300)
            stopped(system, "gateway", 6.0 if number == 0 else 0.3)
        answered(books, 300)
    clicks = settled(system, codes, books)
    books.judge(clicks)
    balanced(system, clicks, before)
    assert books.broken <= CONNECTIONS, "the keep-alive time may run out while it is stopped, once each"
    assert not set(books.other) - {503}, books.other


@pytest.mark.rule("P4", "A1", "A2", "A3", "A4")
def test_an_analytics_that_is_killed_counts_nothing_twice(system: RunningSystem, codes: Sequence[str]) -> None:
    """kill -9 ten times under load, and stopped for longer than its session: rows and checkpoint agree each time."""
    before = accounts(system)
    with visiting(system.options.ports["gateway"], codes) as books:
        for _ in range(KILLS):
            answered(books, 300)
            replaced(system, "analytics")
        stopped(system, "analytics", 5.0)  # its session is 3 s: the group gives its partitions up
        answered(books, 300)
    clicks = settled(system, codes, books)
    books.judge(clicks)
    balanced(system, clicks, before)
    assert not books.other, "redirects do not depend on who counts"
    assert books.broken == 0


@pytest.mark.rule("P4", "P5", "S3")
def test_a_broker_that_is_away_stops_no_redirect_and_its_clicks_follow(
    system: RunningSystem, codes: Sequence[str]
) -> None:
    """Killed under load, away for a while, back: all redirects were answered, all clicks are counted once."""
    before = accounts(system)
    with visiting(system.options.ports["gateway"], codes) as books:
        answered(books, 300)
        system.kill("kafka", stay_down=True)
        answered(books, 3000)
        system.start("kafka")
        answered(books, 300)
    clicks = settled(system, codes, books)
    books.judge(clicks)
    balanced(system, clicks, before)
    assert not books.other
    assert books.broken == 0
