"""Redirects off the wire: the same bytes, clicks and counts as by the app; what the contract leaves is the app's."""

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from contracts.link import Link, LinkState
from tests.fakes.gateway_peers import AT, make_link
from tests.fakes.gateway_ports import DoorOptions
from tests.fakes.spans import spans_of, traceparent_of
from tests.integration.gateway.doors import Port, Setting, serving

CODE = "aB3dE7x"
LINK = make_link(CODE)
BROWSER = b"User-Agent: Mozilla/5.0 Chrome/143.0\r\nReferer: https://news.example/\r\nX-Forwarded-For: 203.0.113.7\r\n"


def request_of(target: str = f"/{CODE}", *, method: str = "GET", version: str = "1.1", more: bytes = b"") -> bytes:
    """The bytes of a request."""
    return f"{method} {target} HTTP/{version}\r\nHost: lm.example\r\n".encode() + BROWSER + more + b"\r\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to ask: what is sent, in pieces; whether it is answered past the app; about which link."""

    sent: tuple[bytes, ...]
    past_the_app: bool
    link: Link = LINK
    answers: int = 1


def ask(*requests: bytes, past: bool = True, **link: Any) -> Case:
    """A case whose requests arrive one by one."""
    return Case(sent=requests, past_the_app=past, link=make_link(**link), answers=len(requests))


HOUR = timedelta(hours=1)
PLAIN = request_of()
CASES: dict[str, Case] = {
    **{f"{status}": ask(PLAIN, redirect_status=status) for status in (301, 302, 307, 308)},
    **{f"HEAD {status}": ask(request_of(method="HEAD"), redirect_status=status) for status in (301, 302, 307, 308)},
    "one after the other": ask(PLAIN, PLAIN, PLAIN),
    "a chosen code": ask(request_of("/spring_sale-24"), short_code="spring_sale-24"),
    "a target with odd letters": ask(PLAIN, long_url="https://ex\u00e4mple.com/\u2603?q=a%20b&r=\u00fc#f"),
    "a very long target": ask(PLAIN, long_url="https://example.com/" + "x" * 2000),
    "a link that has begun": ask(PLAIN, starts_at=AT - HOUR),
    "a link that will end": ask(PLAIN, expires_at=AT + HOUR),
    "a link that ends now": ask(PLAIN, past=False, expires_at=AT),
    "a link that begins later": ask(PLAIN, past=False, starts_at=AT + HOUR),
    "a deleted link": ask(PLAIN, past=False, state=LinkState.DELETED, deleted_at=AT),
    "a blocked link": ask(PLAIN, past=False, state=LinkState.BLOCKED),
    "another code": ask(request_of("/aB3dE7y"), past=False),
    "another case": ask(request_of("/AB3DE7X"), past=False),
    "a query": ask(request_of(f"/{CODE}?utm_source=x&y=/z")),
    "an empty query": ask(request_of(f"/{CODE}?")),
    "two marks of a query": ask(request_of(f"/{CODE}??a?b")),
    "a fragment": ask(request_of(f"/{CODE}#top"), past=False),
    "a percent-encoded letter": ask(request_of("/%61B3dE7x"), past=False),
    "a percent-encoded slash": ask(request_of(f"/{CODE}%2F"), past=False),
    "an unfinished percent": ask(request_of(f"/{CODE}%"), past=False),
    "a percent-encoded letter of no ASCII": ask(request_of("/%C3%A4B3dE7x"), past=False),
    "a plus": ask(request_of(f"/{CODE}+"), past=False),
    "a slash at the end": ask(request_of(f"/{CODE}/"), past=False),
    "two slashes": ask(request_of(f"//{CODE}"), past=False),
    "a dot": ask(request_of(f"/./{CODE}"), past=False),
    "the root": ask(request_of("/"), past=False),
    "a reserved word": ask(request_of("/metrics"), past=False),
    "a reserved word in capitals": ask(request_of("/API"), past=False),
    "a page": ask(request_of("/robots.txt"), past=False),
    "an absolute target": ask(request_of(f"http://lm.example/{CODE}"), past=False),
    "an asterisk": ask(request_of("*", method="OPTIONS"), past=False),
    "a parameter": ask(request_of(f"/{CODE};x=1"), past=False),
    "POST": ask(request_of(method="POST", more=b"Content-Length: 0\r\n"), past=False),
    "DELETE": ask(request_of(method="DELETE"), past=False),
    "OPTIONS": ask(request_of(method="OPTIONS"), past=False),
    "a method with as many letters": ask(request_of(method="PUT"), past=False),
    "HTTP/1.0": ask(request_of(version="1.0"), past=False),
    "HTTP/1.0, kept": ask(request_of(version="1.0", more=b"Connection: keep-alive\r\n"), past=False),
    "HTTP/2.0, kept": ask(request_of(version="2.0", more=b"Connection: keep-alive\r\n"), past=False),
    "kept, said aloud": ask(request_of(more=b"Connection: keep-alive\r\n")),
    "the last one": ask(request_of(more=b"Connection: close\r\n"), past=False),
    "the last one of several words": ask(request_of(more=b"Connection: x, CLOSE\r\n"), past=False),
    "an upgrade": ask(request_of(more=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), past=False),
    "a word of an upgrade alone": ask(request_of(more=b"Upgrade: h2c\r\n")),
    "waiting to go on": ask(request_of(more=b"Expect: 100-continue\r\n")),
    "a body": ask(request_of(more=b"Content-Length: 5\r\n") + b"hello", PLAIN),
    "a body in chunks": ask(
        request_of(more=b"Transfer-Encoding: chunked\r\n") + b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n", PLAIN
    ),
    "no headers": ask(f"GET /{CODE} HTTP/1.1\r\n\r\n".encode()),
    "a header twice": ask(request_of(more=BROWSER + b"Cookie: a=b\r\n")),
    "a header of no ASCII": ask(request_of(more=b"X-Name: \xc3\xa4\xff\r\n")),
    "an empty line first": ask(b"\r\n" + PLAIN),
    "in pieces": Case(sent=(PLAIN[:3], PLAIN[3:9], PLAIN[9:40], PLAIN[40:]), past_the_app=True),
    "many at once": Case(sent=(PLAIN * 20,), past_the_app=True, answers=20),
    "many at once, cut anywhere": Case(
        sent=tuple((PLAIN * 5)[start : start + 97] for start in range(0, len(PLAIN) * 5, 97)),
        past_the_app=True,
        answers=5,
    ),
    "HTTP/1.0 behind HTTP/1.1": Case(
        sent=(PLAIN + request_of(version="1.0", more=b"Connection: keep-alive\r\n"),), past_the_app=False, answers=2
    ),
}


async def _told(port: Port, case: Case) -> bytes:
    """All that comes back, without what is another one for each request."""
    told = b""
    async with port.dial() as wire:
        one_by_one = case.answers == len(case.sent)
        for piece in case.sent:
            await port.send(wire, piece)
            if one_by_one:
                told += await wire.answer(head_only=piece.startswith(b"HEAD "))
        if not one_by_one:
            told += b"".join([await wire.answer() for _ in range(case.answers)])
        wire.writer.write_eof()
        told += await wire.rest()
    return re.sub(rb'("trace_id": ?")\w{32}', rb"\1", told)


@pytest.mark.parametrize("name", CASES)
def test_both_ways_say_the_same(name: str) -> None:
    """Whatever is asked, and however it arrives: the answer is the app's to the byte, and the click is the same; only
    what the contract names goes past the app."""
    case = CASES[name]
    told: list[bytes] = []
    clicks: list[Any] = []
    asked: list[int] = []

    async def scenario(port: Port) -> None:
        told.append(await _told(port, case))
        clicks.append(port.door.clicks.clicks)
        asked.append(len(port.asked))

    serving(scenario, Setting(links=(case.link,)))
    serving(scenario, Setting(links=(case.link,), fast=False))

    assert told[0] == told[1]
    assert told[0].startswith(b"HTTP/1.1 ")
    assert clicks[0] == clicks[1]
    assert (asked[0] == 0) == case.past_the_app
    assert asked[1] == told[1].count(b"HTTP/1.1 ")


def counted(name: str, **labels: str) -> float:
    """What a counter stands at."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def standing() -> dict[str, float]:
    """What the redirects here are counted by."""
    name, labels = "http_server_request_duration_seconds", {"method": "GET", "route": "/{code}", "status": "302"}
    return {
        "redirects": counted("redirects_total", result="redirected"),
        "look-ups": counted("redirect_lookup_total", source="near"),
        "requests": counted(f"{name}_count", **labels),
        "at most a second": counted(f"{name}_bucket", le="1.0", **labels),
        "HEAD": counted(f"{name}_count", **(labels | {"method": "HEAD"})),
    }


@pytest.mark.parametrize("fast", [True, False])
def test_they_are_counted_as_by_the_app(fast: bool) -> None:
    """Each redirect is in the counters and in the histogram, once, whenever somebody looks, and takes no time back."""
    spent = "http_server_request_duration_seconds_sum"
    labels = {"method": "GET", "route": "/{code}", "status": "302"}

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            before, spent_before = standing(), counted(spent, **labels)
            for expected in (1, 2, 3):
                await wire.ask(PLAIN)
                now = standing()
                assert now == {name: value + (name != "HEAD") * expected for name, value in before.items()}
            wire.writer.write(request_of(method="HEAD"))
            await wire.answer(head_only=True)
            assert standing()["HEAD"] == before["HEAD"] + 1
            assert fast <= (counted(spent, **labels) > spent_before)  # for the app time stands still here

    serving(scenario, Setting(links=(LINK,), fast=fast))


def test_a_redirect_that_took_long_is_counted_as_such() -> None:
    """Recording that hangs for a moment is no fast redirect: it is in the bucket where it belongs."""
    name, labels = "http_server_request_duration_seconds_bucket", {"method": "GET", "route": "/{code}", "status": "302"}

    async def scenario(port: Port) -> None:
        def hang(*_click: object) -> bool:
            until_s = time.monotonic() + 0.06
            while time.monotonic() < until_s:
                pass
            return True

        port.door.clicks.record = hang  # type: ignore[assignment, method-assign]  # a slow disk, planted
        async with port.dial() as wire:
            quick, slow = counted(name, le="0.05", **labels), counted(name, le="+Inf", **labels)
            before = standing()["redirects"]
            await wire.ask(PLAIN)
            assert (counted(name, le="0.05", **labels), counted(name, le="+Inf", **labels)) == (quick, slow + 1)
            assert standing()["redirects"] == before + 1
            assert port.asked == []

    serving(scenario, Setting(links=(LINK,)))


@pytest.mark.parametrize(("ratio", "asked"), [(1.0, 40), (0.0, 0), (0.5, None)])
def test_a_trace_that_is_kept_is_the_apps(ratio: float, asked: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By chance as often as wanted a request goes to the app, has its span there, and its click the span's trace; the
    others have neither."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            for _ in range(40):
                await wire.ask(PLAIN)
        traceparents = [traceparent for _, traceparent in port.door.clicks.recorded]
        kept = [each for each in traceparents if each is not None]
        assert len(traceparents) == 40
        if asked is None:
            assert 2 <= len(port.asked) <= 38  # one time in 10 ^ 9 it is not
        else:
            assert len(port.asked) == asked
        assert len(kept) == len(port.asked) == len(spans.finished())
        assert kept == [traceparent_of(span) for span in spans.finished()]

    with spans_of(monkeypatch) as spans:
        serving(scenario, Setting(links=(LINK,), options=DoorOptions(keep_ratio=ratio)))


def test_what_cannot_be_recorded_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in recording ends as 500 without its text, as by the app; the connection goes on."""

    async def scenario(port: Port) -> None:
        def explode(*_click: object) -> bool:
            raise ValueError("secret")

        record = port.door.clicks.record
        port.door.clicks.record = explode  # type: ignore[assignment, method-assign]  # a bug, planted
        async with port.dial() as wire:
            answer = await wire.ask(PLAIN)
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"secret" not in answer
        port.door.clicks.record = record  # type: ignore[method-assign]
        async with port.dial() as wire:
            assert (await wire.ask(PLAIN)).startswith(b"HTTP/1.1 302 ")

    with caplog.at_level(logging.CRITICAL):
        serving(scenario, Setting(links=(LINK,)))


def test_answers_keep_the_order_of_the_requests() -> None:
    """Redirects behind something slow wait for it, something slow behind redirects does not hold them up, and all of
    it comes back in the order it was asked for."""

    async def scenario(port: Port) -> None:
        links = port.door.peers.links
        links.gate = asyncio.Event()
        links.links["slow-one"] = make_link("slow-one", redirect_status=307)
        slow = request_of("/slow-one")
        async with port.dial() as wire:
            wire.writer.write(PLAIN + PLAIN + slow + PLAIN + request_of("/robots.txt") + PLAIN)
            first = [await wire.answer() for _ in range(2)]
            assert port.asked == ["/slow-one"]
            links.gate.set()
            answers = first + [await wire.answer() for _ in range(4)]
            assert [answer.split()[1] for answer in answers] == [b"302", b"302", b"307", b"302", b"200", b"302"]
            assert port.asked == ["/slow-one", f"/{CODE}", "/robots.txt", f"/{CODE}"]
            await wire.ask(PLAIN)
            assert len(port.asked) == 4  # nothing is unanswered any more

    serving(scenario, Setting(links=(LINK,)))


def test_a_link_that_changes_is_not_ready_any_more() -> None:
    """What this process lets go of goes to the app with the next request, and comes back as it is now."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            assert b" 302 " in await wire.ask(PLAIN)
            port.door.cache.store(make_link(CODE, state=LinkState.DELETED))
            port.door.lookups.changed(LINK.key)
            assert b" 410 " in await wire.ask(PLAIN)
            assert port.asked == [f"/{CODE}"]

    serving(scenario, Setting(links=(LINK,)))
