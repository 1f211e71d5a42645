"""What a visitor meets whose code is not cached while the database cannot be asked, and what the next one meets."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from chassis.redis import open_redis
from contracts.cache import url_key
from contracts.link import LinkKey
from linkmesh.client import Client, Problem
from tests.e2e.rows import stored_link
from tests.e2e.second_gateway import second_gateway
from tests.e2e.stalls import stalls
from tests.e2e.waiting import eventually
from tests.system import RunningSystem, started_system

RELEASED = 'consumer_records_total{group="cache-refresher",outcome="released"'
BROWSER = {"accept": "text/html,*/*;q=0.8"}
_HANDS = 5  # processes that an answer waits for, each of which the machine may hold up


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of this module's own, without those who have no part in this."""
    services = ("link_service", "writer", "gateway")
    with started_system(tmp_path_factory.mktemp("misses"), services=services, traces=False) as running:
        yield running


def follow(system: RunningSystem, code: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """One redirect."""
    return httpx.get(f"{system.gateway}/{code}", headers=headers, trust_env=False, timeout=20)


def metric(system: RunningSystem, service: str, name: str) -> float:
    """The sum of the samples that begin like this; 0 while the process is away."""
    try:
        text = httpx.get(system.admin(service) + "/metrics", trust_env=False).text
    except httpx.TransportError:
        return 0.0
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def in_redis(system: RunningSystem, code: str) -> bool:
    """Whether the entry of a code is there."""

    async def ask() -> bool:
        async with open_redis(system.address("redis"), timeout_s=5) as redis:
            return bool(await redis.exists(url_key(LinkKey(code))))

    return asyncio.run(ask())


def cold(system: RunningSystem) -> str:
    """The code of a link that the table has and Redis no longer."""
    with system.client() as client:
        code = eventually(lambda: _create(client))
    eventually(lambda: stored_link(system.address("dynamodb"), code) is not None)

    async def evict() -> None:
        async with open_redis(system.address("redis"), timeout_s=5) as redis:
            await redis.delete(url_key(LinkKey(code)))

    asyncio.run(evict())
    return code


def refused_in_time(system: RunningSystem, code: str) -> None:
    """A visitor is told to come again, soon: a program by a problem, a person by a page."""
    with stalls() as machine:
        began = time.monotonic()
        told = follow(system, code)
        took_s = time.monotonic() - began
    shown = follow(system, code, BROWSER)

    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    assert told.headers["content-type"] == "application/problem+json"
    assert (shown.status_code, shown.headers["retry-after"]) == (503, "1")
    assert shown.headers["content-type"].startswith("text/html")
    assert took_s < 2.0 + _HANDS * machine.longest_s, "the deadlines together are 0.35 s; the rest is a busy machine"


def redirects_from_redis(system: RunningSystem, code: str) -> bool:
    """Whether a visitor is sent on, and nobody but Redis had to be asked."""
    before = metric(system, "gateway", 'redirect_lookup_total{source="redis"}')
    return follow(system, code).status_code == 302 and (
        metric(system, "gateway", 'redirect_lookup_total{source="redis"}') == before + 1
    )


@pytest.mark.rule("C6", "L4", "P5", "P7")
def test_while_the_database_hangs_a_miss_is_503_and_afterwards_warm_without_another_visitor(
    system: RunningSystem,
) -> None:
    """DynamoDB SIGSTOPped: 503 in time and a ReadRequest, one a second however many come. It waits until the database
    goes on, and then puts the entry into Redis by itself: the next visitor is sent on from there."""
    code = cold(system)
    sent, filled, released = (
        metric(system, "gateway", "read_requests_sent_total"),
        metric(system, "link_service", 'read_requests_total{outcome="filled"}'),
        metric(system, "link_service", RELEASED),
    )
    system.pause("dynamodb")
    try:
        began = time.monotonic()
        refused_in_time(system, code)
        while time.monotonic() < began + 2.5:
            assert follow(system, code).status_code == 503
        stormed_s = time.monotonic() - began
        eventually(lambda: metric(system, "gateway", "read_requests_sent_total") > sent)
        assert metric(system, "gateway", "read_requests_sent_total") - sent <= stormed_s + 1
        eventually(lambda: metric(system, "link_service", RELEASED) > released, timeout_s=30)
        last = time.monotonic() + 5  # no read of a visitor is under way any more, which could fill the entry as well
        eventually(lambda: time.monotonic() > last)
        assert not in_redis(system, code)
    finally:
        system.resume("dynamodb")

    eventually(lambda: in_redis(system, code), timeout_s=30)
    eventually(lambda: metric(system, "link_service", 'read_requests_total{outcome="filled"}') > filled)
    eventually(lambda: redirects_from_redis(system, code))


@pytest.mark.rule("C6", "L4", "P7")
def test_while_link_service_is_away_a_miss_is_503_and_warm_once_it_is_back(system: RunningSystem) -> None:
    """The request waits in the topic for whoever consumes it."""
    code = cold(system)
    sent = metric(system, "gateway", "read_requests_sent_total")
    system.stop("link_service")
    try:
        refused_in_time(system, code)
        eventually(lambda: metric(system, "gateway", "read_requests_sent_total") > sent)
    finally:
        system.start("link_service")

    eventually(lambda: in_redis(system, code), timeout_s=45)
    eventually(lambda: redirects_from_redis(system, code))


@pytest.mark.rule("L4")
def test_a_deployment_may_prefer_no_answer_to_an_unconfirmed_one(system: RunningSystem, tmp_path: Path) -> None:
    """Redis away: one gateway answers from the table, another one, which was told so, 503; an absence is 503."""
    with system.client() as client:
        code = eventually(lambda: _create(client))
    eventually(lambda: stored_link(system.address("dynamodb"), code) is not None)
    unconfirmed = metric(system, "gateway", 'redirect_lookup_total{source="unconfirmed"}')
    with second_gateway(system, tmp_path, {"LINKMESH_SERVE_UNCONFIRMED": "false"}) as strict:
        system.kill("valkey", stay_down=True)
        try:
            served = eventually(lambda: answer if (answer := follow(system, code)).status_code == 302 else None)
            refused = httpx.get(f"{strict}/{code}", trust_env=False, timeout=20)
            absent = follow(system, "nobody-has-it")
        finally:
            system.start("valkey")

        assert served.headers["location"] == "https://example.org/"
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert absent.status_code == 503
        assert metric(system, "gateway", 'redirect_lookup_total{source="unconfirmed"}') > unconfirmed
        eventually(lambda: httpx.get(f"{strict}/{code}", trust_env=False, timeout=20).status_code == 302)


def _create(client: Client) -> str:
    """The code of a new link; empty where a busy machine has missed a deadline."""
    try:
        return str(client.create_link("https://example.org/")["short_code"])
    except Problem as problem:
        if problem.status not in (503, 504):
            raise
        return ""
