"""What users keep when something dies, hangs or is away: real processes, real signals, work in flight."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from link_service.adapters.link_cache_redis import MUTATE_TIMEOUT_S
from tests.e2e.rows import stored_events
from tests.e2e.stalls import Stalls, stalls
from tests.e2e.waiting import eventually
from tests.system import RunningSystem, started_system

WORKERS = 4
_HANDS = 5  # processes that a create goes through, each of which the machine may hold up


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of this module's own, since it is broken again and again."""
    with started_system(tmp_path_factory.mktemp("faults"), traces=False) as running:
        yield running


@dataclass
class Load:
    """Creates in flight, and what became of them: acknowledged ones by code, and how many were not."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    unknown: int = 0
    failures: list[str] = field(default_factory=list)
    machine: Stalls = field(default_factory=Stalls)


@contextmanager
def creating(system: RunningSystem) -> Iterator[Load]:
    """Creates links from several threads until the block ends, about 100 a second."""
    load, over = Load(), threading.Event()

    def work(worker: int) -> None:
        number = 0
        with client(system) as http:
            while not over.wait(WORKERS / 100):
                number += 1
                long_url = f"https://example.org/{worker}/{number}"
                try:
                    answer = http.post("/api/links", json={"long_url": long_url})
                except httpx.HTTPError:
                    load.unknown += 1
                    continue
                if answer.status_code == 201:
                    load.acknowledged[answer.json()["short_code"]] = long_url
                elif answer.status_code in (503, 504):
                    load.refused += 1
                else:
                    load.failures.append(answer.text)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    with stalls() as load.machine:
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            over.set()
            for thread in threads:
                thread.join()


def client(system: RunningSystem) -> httpx.Client:
    """An API client with the development key."""
    headers = {"authorization": f"Bearer {system.api_key}"}
    return httpx.Client(base_url=system.gateway, headers=headers, timeout=5, trust_env=False)


def grows(load: Load, by: int, *, timeout_s: float = 30.0) -> None:
    """Returns when so many more creates were acknowledged."""
    target = len(load.acknowledged) + by
    eventually(lambda: len(load.acknowledged) >= target, timeout_s=timeout_s)


def goes_on(load: Load) -> None:
    """No create was refused, failed or got lost on the way; but where the machine held up its processes for longer than
    a deadline of Redis' allows, that alone may have refused a few, which says nothing of what is away."""
    assert (load.unknown, load.failures) == (0, [])
    held_up = _HANDS * load.machine.longest_s > MUTATE_TIMEOUT_S
    assert load.refused <= (len(load.acknowledged) // 20 if held_up else 0), (
        f"longest stall {load.machine.longest_s:.3f} s"
    )


def create(system: RunningSystem, **fields: str) -> httpx.Response:
    """One create."""
    with client(system) as http:
        return http.post("/api/links", json={"long_url": "https://example.org/"} | fields)


def created(system: RunningSystem) -> str:
    """The code of a new link. A Redis that an earlier test killed may still be restored: 503, and a second try."""
    answer = eventually(lambda: made if (made := create(system)).status_code == 201 else None)
    return str(answer.json()["short_code"])


def follow(system: RunningSystem, code: str) -> httpx.Response:
    """One redirect."""
    return httpx.get(f"{system.gateway}/{code}", follow_redirects=False, trust_env=False, timeout=5)


def is_stored(system: RunningSystem, codes: list[str]) -> bool:
    """Whether the table has exactly one event for each code."""
    events = stored_events(system.address("dynamodb"), codes)
    assert all(len(found) <= 1 for found in events.values()), "an event is there twice"
    return all(events.values())


@pytest.mark.rule("P1", "P5", "O1")
def test_without_kafka_creates_redirects_and_deletes_go_on_and_events_follow(system: RunningSystem) -> None:
    """A broker that is away stops no user; what happened meanwhile is stored when it is back."""
    old = created(system)
    eventually(lambda: is_stored(system, [old]))
    system.stop("kafka")
    try:
        with creating(system) as load:
            grows(load, 100)
        goes_on(load)
        assert follow(system, old).status_code == 302
        with client(system) as http:
            eventually(lambda: http.delete(f"/api/links/{old}").status_code == 204)
        assert follow(system, old).status_code == 410
        assert not is_stored(system, list(load.acknowledged))
    finally:
        system.start("kafka")

    eventually(lambda: is_stored(system, list(load.acknowledged)), timeout_s=30)
    eventually(lambda: len(stored_events(system.address("dynamodb"), [old])[old]) == 2)


@pytest.mark.rule("P1", "P5", "K1", "C1")
def test_without_dynamodb_generated_creates_and_cached_redirects_go_on(system: RunningSystem) -> None:
    """Ids are in hand, keys are known; a chosen code needs the database and says so. Nothing becomes a dead letter."""
    old = created(system)
    system.kill("dynamodb", stay_down=True)
    try:
        with creating(system) as load:
            grows(load, 50)
        goes_on(load)
        assert follow(system, old).status_code == 302
        assert create(system, custom_code="needs-the-table").status_code == 503
    finally:
        system.start("dynamodb")

    eventually(lambda: is_stored(system, list(load.acknowledged)), timeout_s=30)
    metrics = httpx.get(system.admin("writer") + "/metrics", trust_env=False).text
    buried = [line.split()[-1] for line in metrics.splitlines() if line.startswith("dead_letters_total{")]
    assert buried
    assert set(buried) == {"0.0"}


@pytest.mark.rule("P5", "L4", "R7")
@pytest.mark.parametrize("fault", ["stop", "hang"])
def test_without_redis_persisted_links_redirect_and_creates_are_refused(system: RunningSystem, fault: str) -> None:
    """Away or hung (SIGSTOP): redirects come from the table in time, creates answer 503, and then all is well."""
    codes = [created(system) for _ in range(20)]
    eventually(lambda: is_stored(system, codes))
    system.pause("valkey") if fault == "hang" else system.kill("valkey", stay_down=True)
    try:
        slowest_s, statuses = 0.0, []
        with stalls() as machine:
            for code in codes:
                started = time.monotonic()
                statuses.append(follow(system, code).status_code)
                slowest_s = max(slowest_s, time.monotonic() - started)
        refused = create(system)
        unknown = follow(system, "nobody-has-it")
    finally:
        system.resume("valkey") if fault == "hang" else system.start("valkey")

    assert statuses == [302] * len(codes)
    assert slowest_s < 2.0 + _HANDS * machine.longest_s, "the deadlines together are 0.35 s; the rest is a busy machine"
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert unknown.status_code == 503, "an absence that Redis did not confirm is no 404"
    eventually(lambda: create(system).status_code == 201)


@pytest.mark.rule("P2")
def test_a_delete_that_was_acknowledged_survives_kill_9_of_redis(system: RunningSystem) -> None:
    """204, then the power of kill -9: the code still answers 410."""
    code = created(system)
    with client(system) as http:
        eventually(lambda: http.delete(f"/api/links/{code}").status_code == 204)  # 503 while a breaker closes
    before = system.pid("valkey")
    system.kill("valkey")
    eventually(lambda: system.pid("valkey") not in (0, before))
    system.wait_ready("valkey")

    assert eventually(lambda: (status := follow(system, code).status_code) != 503 and status) == 410
