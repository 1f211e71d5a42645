"""What is changed through one gateway is so at every gateway, at once.

Every gateway asks Redis for every redirect, so what was acknowledged is what the next request anywhere meets; there is
no cache in between that would have to be told.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from linkmesh.client import Client, Problem
from tests.e2e.second_gateway import second_gateway
from tests.e2e.waiting import eventually
from tests.system import RunningSystem

Gateways = tuple[Client, Client]


@pytest.fixture(scope="module")
def gateways(system: RunningSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Clients of the system's own gateway and of a second one."""
    with (
        second_gateway(system, tmp_path_factory.mktemp("second-gateway")) as address,
        system.client() as here,
        Client(address, system.api_key) as there,
    ):
        yield here, there


def done(change: Callable[[], object]) -> bool:
    """Whether a change was acknowledged; a busy machine may miss a deadline of Redis, which is 503 and another try."""
    try:
        change()
    except Problem as problem:
        if problem.status not in (503, 504):
            raise
        return False
    return True


def create(client: Client) -> str:
    """The code of a new link."""
    made: list[str] = []
    eventually(lambda: done(lambda: made.append(str(client.create_link("https://example.org/")["short_code"]))))
    return made[0]


def visit(client: Client, code: str) -> tuple[int, str]:
    """Status and target of a redirect; 503 as above."""
    return eventually(lambda: seen if (seen := client.visit(code))[0] != 503 else None)


@pytest.mark.rule("P2", "R1")
def test_a_delete_a_restore_and_an_update_act_at_once_at_every_gateway(gateways: Gateways) -> None:
    """Acknowledged through one gateway, it is what the very next request at either meets; in turns, ten times."""
    here, there = gateways
    code = create(here)
    assert visit(here, code) == visit(there, code) == (302, "https://example.org/")

    for number in range(10):
        target = f"https://example.org/{number}"
        changing, asking = (here, there) if number % 2 else (there, here)
        for change, expected in (
            (changing.delete_link, (410, "")),
            (asking.restore_link, None),
            (lambda code: changing.update_link(code, {"long_url": target}), (302, target)),  # noqa: B023 (called at once)
        ):
            eventually(lambda: done(lambda: change(code)))  # noqa: B023 (called at once)
            seen = [visit(client, code) for client in (asking, changing)]
            assert seen == [expected] * 2 or (expected is None and {status for status, _ in seen} == {302})


@pytest.mark.rule("P2")
def test_an_end_that_is_set_comes_at_every_gateway_at_its_time(gateways: Gateways) -> None:
    """Expiry is by the clock: from then on both say 410, without anybody being told; an end that is taken away opens
    the link again at once."""
    here, there = gateways
    code = create(here)
    ends_at = datetime.now(UTC) + timedelta(seconds=4)
    eventually(lambda: done(lambda: here.update_link(code, {"expires_at": ends_at.isoformat()})))

    early = [visit(client, code)[0] for client in (here, there)]
    in_time = datetime.now(UTC) < ends_at
    eventually(lambda: datetime.now(UTC) >= ends_at)
    late = [visit(client, code)[0] for client in (there, here)]

    assert early == [302, 302] or not in_time, "a machine that was too slow to ask in time has seen the rest"
    assert late == [410, 410]
    eventually(lambda: done(lambda: there.update_link(code, {"expires_at": None})))
    assert [visit(client, code)[0] for client in (here, there)] == [302, 302]
