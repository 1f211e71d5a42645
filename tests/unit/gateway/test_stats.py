"""What the API tells of clicks: of a link, of an account, and live."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, timedelta
from typing import Any, Self, cast

import pytest

from chassis.errors import FieldViolation, InvalidArgument, NotFound, ResourceExhausted, ServiceError, Unavailable
from contracts.link_codec import timestamp
from gateway.adapters.keys_grpc import GrpcKeys
from gateway.handlers import stats_models as models
from gateway.handlers.api import Peers, make_api
from gateway.handlers.live import LiveStreams
from shortener.analytics.v1 import analytics_service_pb2 as pb
from tests.fakes.gateway_peers import AT, KEY, Direct, FakePeers
from tests.fakes.gateway_ports import Door, FakeClock, open_door

STATS = "/api/links/aB3dE7x/stats"
NOBODY = cast("Any", None)  # what these routes do not use


def run(scenario: Callable[[Door], Awaitable[None]]) -> None:
    """Runs a scenario at a front door."""

    async def main() -> None:
        async with open_door() as door:
            await scenario(door)

    asyncio.run(main())


def test_clicks_are_told() -> None:
    """200 in the documented shape; range, steps, groups and zone reach analytics; the default is thirty days by day."""

    async def scenario(door: Door) -> None:
        query = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-08T00:00:00Z", "granularity": "hour"}

        answer = await door.client.get(STATS, params=query | {"group_by": "os", "tz": "Europe/Berlin"})
        default = await door.client.get(STATS)

        stats = models.StatsBody.model_validate(answer.json())
        assert set(answer.json()) == set(models.StatsBody.model_fields)
        assert stats.clicks.total == stats.clicks.human + stats.clicks.bot == 3
        assert (stats.prefetches, stats.unique_visitors) == (4, 2)
        assert answer.json()["groups"] == [{"value": "unknown", "clicks": 2}]
        assert (default.status_code, default.json()["groups"]) == (200, [])
        asked, usual = door.peers.analytics.requests
        assert (asked.granularity, asked.group_by, asked.time_zone) == (1, pb.GROUP_BY_OS, "Europe/Berlin")
        assert (usual.granularity, usual.group_by, usual.time_zone) == (2, pb.GROUP_BY_UNSPECIFIED, "")
        start = getattr(usual, "from").ToDatetime(tzinfo=UTC)
        assert (start, usual.until.ToDatetime(tzinfo=UTC)) == (AT - timedelta(days=30), AT)
        assert usual.principal.user_id == "alice"

    run(scenario)


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-01-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"},
        {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"},
        {"from": "yesterday"},
        {"from": "2026-11-02T00:00:00"},
        {"from": "1700000000"},
        {"granularity": "minute"},
        {"group_by": "shoe_size"},
        {"group_by": ""},
        {"tz": "x" * 65},
    ],
)
def test_a_bad_question_is_422(query: dict[str, str]) -> None:
    """More than 92 days, backwards, no time zone, no time, unknown steps or groups: analytics is not asked."""

    async def scenario(door: Door) -> None:
        answer = await door.client.get(STATS, params=query)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
        assert door.peers.analytics.requests == []
        assert (await door.client.get(STATS, params={"colour": "red"})).status_code == 200

    run(scenario)


def test_a_field_at_fault_is_named_as_its_parameter() -> None:
    """What analytics calls time_zone and until are tz and to here."""

    async def scenario(door: Door) -> None:
        for field, name in (("time_zone", "tz"), ("until", "to"), ("from", "from")):
            fault = FieldViolation(field, "No.")
            door.peers.analytics.fail["GetClickStats"] = InvalidArgument("invalid_field", "No.", fields=(fault,))

            answer = await door.client.get(STATS, params={"tz": "Nowhere"})

            assert (answer.status_code, answer.json()["errors"]) == (422, [{"field": name, "description": "No."}])

    run(scenario)


def test_an_accounts_top_links() -> None:
    """200 in the documented shape; range and page reach analytics; a page is 1 to 100 links."""

    async def scenario(door: Door) -> None:
        answer = await door.client.get("/api/stats/top", params={"page_size": 7, "page_token": "14"})
        await door.client.get("/api/stats/top")
        bad = await door.client.get("/api/stats/top", params={"page_size": 101})

        top = models.TopLinkList.model_validate(answer.json())
        assert set(answer.json()) == set(models.TopLinkList.model_fields)
        assert [(item.short_code, item.clicks) for item in top.items] == [("aB3dE7x", 9)]
        assert (top.other_clicks, top.next_page_token) == (5, "1")
        asked, usual = door.peers.analytics.requests
        assert (asked.page_size, asked.page_token, usual.page_size) == (7, "14", 20)
        assert asked.principal.user_id == "alice"
        assert asked.until.ToDatetime(tzinfo=UTC) == AT
        assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "page_size")

    run(scenario)


class Listener:
    """A client of the live route, as the server in front of the app would be."""

    def __init__(self, peers: FakePeers, streams: LiveStreams, *, path: str, reads: bool = True) -> None:
        clock = FakeClock()
        direct = {name: cast("Any", Direct(getattr(peers, name))) for name in ("links", "keys", "analytics")}
        self._tasks = asyncio.TaskGroup()
        self._app = make_api(
            peers=Peers(**direct, webhooks=NOBODY, audit=NOBODY),
            keys=GrpcKeys(direct["keys"], clock=clock, tasks=self._tasks),
            creator=NOBODY,
            resolver=NOBODY,
            public_url="https://lm.example",
            clock=clock,
            streams=streams,
        )
        self._path = path
        self._gone = asyncio.Event()
        self._began = False
        self._changed = asyncio.Condition()
        self._reads = reads
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.over = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._asking = self._tasks.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        await self._asking
        await self._tasks.__aexit__(None, None, None)

    async def _ask(self) -> None:
        scope = {
            "type": "http", "method": "GET", "path": self._path, "raw_path": self._path.encode(), "query_string": b"",
            "headers": [(b"authorization", f"Bearer {KEY}".encode())], "http_version": "1.1", "scheme": "http",
            "server": ("lm.example", 80), "client": ("203.0.113.9", 1), "root_path": "", "app": self._app,
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._began:
            self._began = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif not self._reads:
            await asyncio.Event().wait()  # the connection takes nothing, to the end
        else:
            self.body += message["body"]
            self.over = not message.get("more_body")
        async with self._changed:
            self._changed.notify_all()

    def leave(self) -> None:
        """The connection is closed."""
        self._gone.set()

    async def until(self, condition: Callable[["Listener"], bool]) -> None:
        """Returns once it is so; fails after a while."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and data of each event so far."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found


def listen(
    scenario: Callable[[Listener, FakePeers, LiveStreams], Awaitable[None]],
    *,
    streams_max: int = 4,
    reads: bool = True,
) -> None:
    """Runs a scenario with a client that has begun to listen."""

    async def main() -> None:
        peers, streams = FakePeers(), LiveStreams(streams_max=streams_max)
        peers.analytics.live.put_nowait(pb.WatchClicksResponse(counted_until=timestamp(AT)))
        async with Listener(peers, streams, path="/api/links/aB3dE7x/clicks/live", reads=reads) as listener:
            await listener.until(lambda it: it.status > 0)
            await scenario(listener, peers, streams)
        assert peers.analytics.watching == 0, "the call goes on although nobody listens"
        with streams.place():
            pass  # and its place is free

    asyncio.run(main())


async def polled(condition: Callable[[], bool]) -> None:
    """Returns once it is so; fails after a while."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def click(**fields: Any) -> pb.LiveClick:
    """A click of now."""
    return pb.LiveClick(at=timestamp(AT), visitor_class="human", **fields)


def test_clicks_are_told_as_they_come() -> None:
    """An event for each, what is not known is null; comments while nothing happens; how to come again is told first."""

    async def scenario(listener: Listener, peers: FakePeers, _streams: LiveStreams) -> None:
        known = click(country="DE", referrer="news.example", browser="Firefox", os="Linux", device="desktop")
        peers.analytics.live.put_nowait(pb.WatchClicksResponse(clicks=[known, click()]))
        await listener.until(lambda it: len(it.events) == 2)

        assert (listener.status, listener.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert listener.body.startswith(b"retry: 3000\n\n: counted until 2026-11-22T12:00:00Z\n\n")
        assert "content-length" not in listener.headers
        assert listener.events == [
            ("click", {"at": "2026-11-22T12:00:00Z", "visitor_class": "human", "country": "DE",
                       "referrer": "news.example", "browser": "Firefox", "os": "Linux", "device": "desktop"}),
            ("click", {"at": "2026-11-22T12:00:00Z", "visitor_class": "human", "country": None,
                       "referrer": None, "browser": None, "os": None, "device": None}),
        ]  # fmt: skip
        (request,) = peers.analytics.requests
        assert (request.short_code, request.principal.user_id) == ("aB3dE7x", "alice")

    listen(scenario)


def test_a_listener_is_told_what_it_may_have_missed() -> None:
    """Clicks that were left out, and a change of who counts, stand before the clicks behind them."""

    async def scenario(listener: Listener, peers: FakePeers, _streams: LiveStreams) -> None:
        peers.analytics.live.put_nowait(pb.WatchClicksResponse(clicks=[click()], missed=12, interrupted=True))
        await listener.until(lambda it: len(it.events) == 3)

        assert [name for name, _ in listener.events] == ["interrupted", "missed", "click"]
        assert listener.events[1][1] == {"clicks": 12}

    listen(scenario)


def test_the_end_of_the_call_ends_the_stream() -> None:
    """Well, when its time is over; with an event that says why, when it broke."""

    async def ended(listener: Listener, peers: FakePeers, _streams: LiveStreams) -> None:
        peers.analytics.live.put_nowait(None)
        await listener.until(lambda it: it.over)
        assert listener.events == []

    async def broken(listener: Listener, peers: FakePeers, _streams: LiveStreams) -> None:
        peers.analytics.live.put_nowait(Unavailable("unavailable", "Away."))
        await listener.until(lambda it: it.over)
        assert listener.events == [("problem", {"code": "unavailable", "detail": "Away."})]

    listen(ended)
    listen(broken)


def test_a_listener_that_leaves_ends_the_call() -> None:
    """Analytics need not tell anything to nobody."""

    async def scenario(listener: Listener, peers: FakePeers, _streams: LiveStreams) -> None:
        assert peers.analytics.watching == 1
        listener.leave()
        await polled(lambda: peers.analytics.watching == 0)
        assert not listener.over  # nothing is written to a connection that is closed

    listen(scenario)


def test_streams_end_with_the_process() -> None:
    """At stop every stream ends at once, its client may come again elsewhere; a new one is 503."""

    async def scenario(listener: Listener, peers: FakePeers, streams: LiveStreams) -> None:
        stop = asyncio.Event()
        stop.set()
        await streams.run(stop)
        await listener.until(lambda it: it.over)
        async with Listener(peers, streams, path="/api/links/aB3dE7x/clicks/live") as late:
            await late.until(lambda it: it.over)
        assert (late.status, late.headers["retry-after"]) == (503, "1")

    async def main() -> None:
        peers, streams = FakePeers(), LiveStreams()
        peers.analytics.live.put_nowait(pb.WatchClicksResponse())
        async with Listener(peers, streams, path="/api/links/aB3dE7x/clicks/live") as listener:
            await listener.until(lambda it: it.status > 0)
            await scenario(listener, peers, streams)
        assert peers.analytics.watching == 0

    asyncio.run(main())


def test_a_client_that_reads_nothing_is_not_read_for() -> None:
    """While its connection takes nothing, nothing is taken from analytics, which bounds what waits."""

    async def scenario(listener: Listener, peers: FakePeers, _streams: LiveStreams) -> None:
        for _ in range(50):
            peers.analytics.live.put_nowait(pb.WatchClicksResponse(clicks=[click()]))
        for _ in range(50):
            await asyncio.sleep(0)
        assert peers.analytics.live.qsize() >= 49

    listen(scenario, reads=False)


def test_streams_are_bounded() -> None:
    """The one too many is 429 with Retry-After, and analytics is not asked."""

    async def scenario(_listener: Listener, peers: FakePeers, streams: LiveStreams) -> None:
        async with Listener(peers, streams, path="/api/links/aB3dE7x/clicks/live") as second:
            await second.until(lambda it: it.over)
        assert (second.status, second.headers["retry-after"]) == (429, "10")
        assert len(peers.analytics.requests) == 1

    listen(scenario, streams_max=1)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("link_not_found", "No."), 404),
        (ResourceExhausted("rate_limited", "Later.", retry_after_s=10), 429),
        (Unavailable("unavailable", "Away.", retry_after_s=1), 503),
    ],
)
def test_what_is_refused_at_once_is_a_problem(error: ServiceError, status: int) -> None:
    """Before anything was told the answer is as any other: a status and a problem."""

    async def main() -> None:
        peers, streams = FakePeers(), LiveStreams(streams_max=1)
        peers.analytics.live.put_nowait(error)
        async with Listener(peers, streams, path="/api/links/aB3dE7x/clicks/live") as listener:
            await listener.until(lambda it: it.over)
        assert (listener.status, listener.headers["content-type"]) == (status, "application/problem+json")
        assert json.loads(listener.body)["code"] == error.reason
        with streams.place():
            pass

    asyncio.run(main())
