"""GET /{code} through the front door: where the answer comes from, how it looks, which click it leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta

import httpx
import pytest
from prometheus_client import REGISTRY

from chassis.errors import DeadlineExceeded, Internal, Unavailable
from contracts.link import LinkState
from gateway.domain.visitors import Visitors
from shortener.events.v1 import click_events_pb2 as events_pb
from tests.fakes.gateway_peers import AT, make_link
from tests.fakes.gateway_ports import Door, DoorOptions, open_door

BROWSER = {"user-agent": "Mozilla/5.0 Chrome/143.0", "accept": "text/html,*/*;q=0.8"}


def run(scenario: Callable[[Door], Awaitable[None]], options: DoorOptions | None = None) -> None:
    """Runs a scenario at a front door."""

    async def main() -> None:
        async with open_door(options) as door:
            await scenario(door)

    asyncio.run(main())


def counted(name: str, **labels: str) -> float:
    """What a counter stands at."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_link_in_redis_redirects_without_asking_anybody_else() -> None:
    """A value in Redis is answered as it is: 302, Location, no body, nothing for a cache to keep."""

    async def scenario(door: Door) -> None:
        door.cache.store(make_link())
        before = counted("redirects_total", result="redirected"), counted("redirect_lookup_total", source="redis")

        answer = await door.client.get("/aB3dE7x")

        assert answer.status_code == 302
        assert answer.headers["location"] == "https://example.com/there"
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.content == b""
        assert door.peers.links.requests == []
        assert counted("redirects_total", result="redirected") == before[0] + 1
        assert counted("redirect_lookup_total", source="redis") == before[1] + 1

    run(scenario)


@pytest.mark.rule("P5")
@pytest.mark.parametrize("away", [False, True])
def test_link_service_is_asked_for_what_redis_does_not_tell(away: bool) -> None:
    """Absent in Redis, or Redis away: the answer comes from ResolveLink."""

    async def scenario(door: Door) -> None:
        door.cache.away = away
        door.peers.links.links["aB3dE7x"] = make_link(redirect_status=308)

        answer = await door.client.get("/aB3dE7x")

        assert answer.status_code == 308
        assert [request.short_code for request in door.peers.links.requests] == ["aB3dE7x"]

    run(scenario)


@pytest.mark.rule("L4")
def test_an_unconfirmed_answer_is_metered() -> None:
    """What link_service could not confirm is served, and counted under a name of its own."""

    async def scenario(door: Door) -> None:
        door.cache.away = True
        door.peers.links.unconfirmed = True
        door.peers.links.links["aB3dE7x"] = make_link()
        before = counted("redirect_lookup_total", source="unconfirmed")

        answer = await door.client.get("/aB3dE7x")

        assert answer.status_code == 302
        assert counted("redirect_lookup_total", source="unconfirmed") == before + 1

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"state": LinkState.DELETED}, 410, "link_deleted"),
        ({"expires_at": AT}, 410, "link_expired"),
        ({"state": LinkState.BLOCKED}, 451, "link_blocked"),
        ({"starts_at": AT + timedelta(hours=1)}, 404, "link_not_found"),
        (None, 404, "link_not_found"),
    ],
)
def test_refusals_are_problems(changes: dict[str, object] | None, status: int, code: str) -> None:
    """404, 410 and 451 are told apart; a program reads problem+json, a browser a page; neither leaves a click."""

    async def scenario(door: Door) -> None:
        if changes is not None:
            door.cache.store(make_link(**changes))  # type: ignore[arg-type]  # a table of fields

        told = await door.client.get("/aB3dE7x")
        shown = await door.client.get("/aB3dE7x", headers=BROWSER)

        assert (told.status_code, shown.status_code) == (status, status)
        assert told.headers["content-type"] == "application/problem+json"
        problem = told.json()
        assert set(problem) == {"type", "title", "status", "detail", "code", "errors", "trace_id"}
        assert (problem["code"], problem["status"]) == (code, status)
        assert len(problem["trace_id"]) == 32
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in shown.headers["content-security-policy"]
        assert problem["title"] in shown.text
        assert told.headers["cache-control"] == "no-store"
        assert door.clicks.clicks == []

    run(scenario)


@pytest.mark.rule("L4")
def test_an_unconfirmed_answer_is_refused_where_that_was_asked_for() -> None:
    """`serve_unconfirmed=false`: no redirect on an answer that may miss a delete; counted all the same."""

    async def scenario(door: Door) -> None:
        door.peers.links.links["aB3dE7x"] = make_link()
        door.cache.away = door.peers.links.unconfirmed = True
        before = counted("redirect_lookup_total", source="unconfirmed")

        refused = await door.client.get("/aB3dE7x")
        door.peers.links.unconfirmed = False
        served = await door.client.get("/aB3dE7x")

        assert (refused.status_code, refused.headers["retry-after"], served.status_code) == (503, "1", 302)
        assert counted("redirect_lookup_total", source="unconfirmed") == before + 1
        assert len(door.clicks.clicks) == 1

    run(scenario, DoorOptions(serve_unconfirmed=False))


@pytest.mark.rule("L4", "C6")
@pytest.mark.parametrize("error", [Unavailable("unavailable", "away"), DeadlineExceeded("deadline_exceeded", "late")])
def test_no_answer_in_time_is_503_and_a_request_to_warm_the_cache(error: Unavailable | DeadlineExceeded) -> None:
    """Neither Redis nor link_service: 503 with Retry-After, never a 404 that would be a lie, as a page for a browser;
    and the code is asked for, so that the next try finds it."""

    async def scenario(door: Door) -> None:
        door.cache.away = True
        door.peers.links.fail["ResolveLink"] = error

        answer = await door.client.get("/aB3dE7x")
        shown = await door.client.get("/aB3dE7x", headers=BROWSER)

        assert answer.status_code == shown.status_code == 503
        assert answer.headers["retry-after"] == shown.headers["retry-after"] == "1"
        assert answer.json()["code"] == "unavailable"
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert door.read_requests.keys == ["aB3dE7x", "aB3dE7x"]

    run(scenario)


@pytest.mark.rule("C6")
def test_only_what_was_not_answered_in_time_is_asked_for() -> None:
    """A redirect, a 404 and a row that cannot be read ask for nothing: the next try would end the same."""

    async def scenario(door: Door) -> None:
        door.cache.store(make_link())
        statuses = [(await door.client.get("/aB3dE7x")).status_code, (await door.client.get("/aB3dE7y")).status_code]
        door.peers.links.fail["ResolveLink"] = Internal("internal", "Unreadable.")
        statuses.append((await door.client.get("/aB3dE7z")).status_code)

        assert statuses == [302, 404, 503]
        assert door.read_requests.keys == []

    run(scenario)


def test_a_bug_is_500_and_says_nothing() -> None:
    """An error nobody thought of is answered as ours, without its text."""

    async def scenario(door: Door) -> None:
        def explode(_key: object, _tell: object) -> None:
            raise ValueError("secret")

        door.cache.begin = explode  # type: ignore[assignment, method-assign]  # a bug, planted

        answer = await door.client.get("/aB3dE7x")

        assert answer.status_code == 500
        assert answer.json()["code"] == "internal"
        assert "secret" not in answer.text

    run(scenario)


@pytest.mark.parametrize("path", ["/ab", "/" + "x" * 65, "/favicon.ico", "/console", "/%0d%0aSet-Cookie:x", "/a%20b"])
def test_impossible_codes_cost_nothing(path: str) -> None:
    """What cannot be a code is 404 without a look-up."""

    async def scenario(door: Door) -> None:
        answer = await door.client.get(path)

        assert answer.status_code == 404
        assert answer.json()["code"] == "link_not_found"
        assert door.cache.asked == []
        assert door.peers.links.requests == []

    run(scenario)


@pytest.mark.parametrize("path", ["/a/b", "/aB3dE7x/", "/a//", "/apix/links", "/.well-known/nothing"])
def test_paths_that_are_nothing_are_problems(path: str) -> None:
    """A path of several segments is 404 not_found."""

    async def scenario(door: Door) -> None:
        answer = await door.client.get(path)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    run(scenario)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_code_can_only_be_read(method: str) -> None:
    """Other methods are 405, and Allow tells which are right."""

    async def scenario(door: Door) -> None:
        answer = await door.client.request(method, "/aB3dE7x")

        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"

    run(scenario)


@pytest.mark.rule("S7")
def test_a_click_knows_its_visitor_but_no_address() -> None:
    """The click is taken with its class, cut headers and a hash; the address is nowhere in it."""

    async def scenario(door: Door) -> None:
        door.cache.store(make_link())
        headers = BROWSER | {"referer": "https://news.example/" + "x" * 600, "cf-ipcountry": "de"}

        await door.client.get("/aB3dE7x", headers=headers)
        await door.client.head("/aB3dE7x", headers=BROWSER)
        await door.client.get("/aB3dE7x", headers=BROWSER | {"sec-purpose": "prefetch"})
        await door.client.get("/aB3dE7x", headers=BROWSER | {"purpose": "prefetch"})

        clicks = door.clicks.clicks
        human, bot, prefetch, old_prefetch = (click.visitor_class for click in clicks)
        assert (human, bot) == (events_pb.VISITOR_CLASS_HUMAN, events_pb.VISITOR_CLASS_BOT)
        assert prefetch == old_prefetch == events_pb.VISITOR_CLASS_PREFETCH
        first = clicks[0]
        assert (first.link_key, first.user_id, first.country) == ("aB3dE7x", "alice", "DE")
        assert first.at.ToDatetime(UTC) == AT
        assert len(first.referrer) == 512
        assert len({click.visitor for click in clicks}) == 1
        assert "203.0.113.9" not in repr(clicks)
        assert {traceparent for _, traceparent in door.clicks.recorded} == {None}

    run(scenario, DoorOptions(visitors=Visitors(b"v" * 32, country_header=b"cf-ipcountry")))


def test_forwarded_addresses_count_only_behind_our_proxies() -> None:
    """With no trusted proxy X-Forwarded-For changes nothing; with one it tells visitors apart."""

    async def hashes(door: Door) -> set[bytes]:
        door.cache.store(make_link())
        for address in ("198.51.100.1", "198.51.100.2"):
            await door.client.get("/aB3dE7x", headers=BROWSER | {"x-forwarded-for": address})
        return {click.visitor for click in door.clicks.clicks}

    async def nobody(door: Door) -> None:
        assert len(await hashes(door)) == 1

    async def one(door: Door) -> None:
        assert len(await hashes(door)) == 2

    run(nobody)
    run(one, DoorOptions(visitors=Visitors(b"v" * 32, trusted_proxies=1)))


def test_a_country_needs_a_header_we_were_told_of() -> None:
    """Without a configured header nobody can state a country."""

    async def scenario(door: Door) -> None:
        door.cache.store(make_link())
        await door.client.get("/aB3dE7x", headers=BROWSER | {"cf-ipcountry": "DE"})

        assert door.clicks.clicks[0].country == ""

    run(scenario)


def test_fixed_pages() -> None:
    """Landing, robots, documentation, and a security contact where there is one; only for reading."""

    async def scenario(door: Door) -> None:
        pages = {
            path: await door.client.get(path) for path in ("/", "/robots.txt", "/docs", "/.well-known/security.txt")
        }

        assert {answer.status_code for answer in pages.values()} == {200}
        assert pages["/"].json()["docs"] == "https://lm.example/docs"
        assert "Disallow: /" in pages["/robots.txt"].text
        assert "POST /api/links" in pages["/docs"].text
        assert "script" not in pages["/docs"].text
        assert "http" not in pages["/docs"].headers["content-security-policy"]
        assert pages["/.well-known/security.txt"].text.startswith(
            "Contact: mailto:security@lm.example\nExpires: 2027-05"
        )
        assert (await door.client.post("/robots.txt")).status_code == 405

    run(scenario, DoorOptions(security_contact="mailto:security@lm.example"))


def test_requests_are_measured_by_route() -> None:
    """Durations carry method, template and status; never a code, and a made-up method makes no label of its own."""

    async def scenario(door: Door) -> None:
        door.cache.store(make_link())
        name = "http_server_request_duration_seconds_count"

        await door.client.get("/aB3dE7x")
        await door.client.request("BREW", "/aB3dE7x")
        await door.client.get("/api/links/aB3dE7x")
        await door.client.get("/api/nothing")

        assert counted(name, method="GET", route="/{code}", status="302") >= 1
        assert counted(name, method="OTHER", route="/{code}", status="405") >= 1
        assert counted(name, method="GET", route="/api/links/{code}", status="404") >= 1
        assert counted(name, method="GET", route="/api", status="404") >= 1
        labels = [sample.labels for metric in REGISTRY.collect() for sample in metric.samples]
        assert not any("aB3dE7x" in str(each) for each in labels)

    run(scenario)


def test_a_head_is_answered_like_a_get() -> None:
    """HEAD has the same status and headers."""

    async def scenario(door: Door) -> None:
        door.cache.store(make_link())
        got: httpx.Response = await door.client.get("/aB3dE7x")
        looked: httpx.Response = await door.client.head("/aB3dE7x")

        assert (looked.status_code, looked.headers) == (got.status_code, got.headers)

    run(scenario)
