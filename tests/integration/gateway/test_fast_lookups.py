"""Redirects past the app whose link has to be looked up first: told, recorded and counted as by the app."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis.errors import Unavailable
from contracts.link import Link, LinkKey
from gateway.ports import LOOKED, SHORTCUTS, TellValue
from tests.fakes.gateway_peers import make_link
from tests.fakes.gateway_ports import DoorOptions
from tests.integration.gateway.doors import Port, Setting, serving, until
from tests.integration.gateway.test_fast_redirects import CASES, _told

LINK, OTHER = make_link(), make_link("another")


def request(code: str, *headers: str) -> bytes:
    """A plain one."""
    return "\r\n".join([f"GET /{code} HTTP/1.1", "Host: lm.example", *headers, "", ""]).encode()


@pytest.mark.parametrize("name", CASES)
def test_both_ways_say_the_same_of_a_link_in_redis(name: str) -> None:
    """Whatever is asked, and however it arrives: the answer is the app's to the byte, and the click is the same."""
    case = CASES[name]
    told: list[bytes] = []
    clicks: list[Any] = []

    async def scenario(port: Port) -> None:
        told.append(await _told(port, case))
        clicks.append(port.door.clicks.clicks)

    serving(scenario, Setting(stored=(case.link,), misses=True))
    serving(scenario, Setting(stored=(case.link,), fast=False))

    assert told[0] == told[1]
    assert clicks[0] == clicks[1]


def of_both(scenario: Callable[[Port], Any], options: DoorOptions | None = None, link: Link = LINK) -> None:
    """Runs it past the app and through it."""
    serving(scenario, Setting(stored=(link,), misses=True, options=options))
    serving(scenario, Setting(stored=(link,), fast=False, options=options))


def test_a_look_up_needs_no_app_and_keeps_its_place() -> None:
    """Past the app; what comes behind it on the connection waits, also what would be ready at once."""
    held: list[tuple[LinkKey, TellValue]] = []

    async def scenario(port: Port) -> None:
        real = port.door.cache.begin
        port.door.cache.begin = lambda key, tell: held.append((key, tell))  # type: ignore[method-assign]  # held back
        async with port.dial() as wire:
            await port.send(wire, request("aB3dE7x"))
            await port.send(wire, request("another"))
            await until(lambda: bool(held))
            assert port.door.clicks.clicks == []
            real(*held.pop())
            first, second = await wire.answer(), await wire.answer()

        assert (first[:12], second[:12]) == (b"HTTP/1.1 302", b"HTTP/1.1 302")
        assert [click.link_key for click in port.door.clicks.clicks] == ["aB3dE7x", "another"]
        assert port.asked == ["/another"], "what had to wait is the app's"

    serving(scenario, Setting(links=(OTHER,), stored=(LINK,), misses=True))


def test_what_is_no_redirect_is_the_apps_and_is_looked_up_once() -> None:
    """404, and 503 while nobody answers: one question each, one hint, told as ever."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            await port.send(wire, request("nobody-has-it"))
            assert (await wire.answer())[:12] == b"HTTP/1.1 404"
            assert port.door.cache.asked == ["nobody-has-it"]
            assert len(port.door.peers.links.requests) == 1
            port.door.cache.away = True
            port.door.peers.links.fail["ResolveLink"] = Unavailable("unavailable", "No.")
            await port.send(wire, request("nobody-knows"))
            assert (await wire.answer())[:12] == b"HTTP/1.1 503"
            assert port.door.read_requests.keys == ["nobody-knows"]
            assert len(port.door.peers.links.requests) == 2

    of_both(scenario)


@pytest.mark.rule("L5")
def test_too_many_misses_are_counted_once_each() -> None:
    """Three are 404, the fourth is 429, whichever way they come; a look-up by the app behind one past it is none."""

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            statuses = []
            for number in range(4):
                await port.send(wire, request(f"none{number:04d}", "X-Forwarded-For: 203.0.113.7"))
                statuses.append(int((await wire.answer())[9:12]))

        assert statuses == [404, 404, 404, 429]

    of_both(scenario, DoorOptions(misses_per_minute=3, visitors=visitors()))


def visitors() -> Any:
    """Behind one proxy of ours."""
    return type(DoorOptions().visitors)(b"v" * 32, 1)


def test_who_hangs_up_undoes_nothing() -> None:
    """The click of somebody who went away while his link was looked up is recorded, as behind the app."""
    held: list[tuple[LinkKey, TellValue]] = []

    async def scenario(port: Port) -> None:
        real = port.door.cache.begin
        port.door.cache.begin = lambda key, tell: held.append((key, tell))  # type: ignore[method-assign]  # held back
        async with port.dial() as wire:
            await port.send(wire, request("aB3dE7x"))
            await until(lambda: bool(held))
        await until(lambda: all(protocol.transport.is_closing() for protocol in port.protocols))
        real(*held.pop())
        await until(lambda: len(port.door.clicks.clicks) == 1)

    of_both(scenario)


def test_a_bug_is_500_and_the_connection_goes_on() -> None:
    """What nobody thought of is told as ours, by either way."""

    async def scenario(port: Port) -> None:
        def explode(_key: object, _tell: object) -> None:
            raise ValueError("secret")

        port.door.cache.begin = explode  # type: ignore[assignment, method-assign]  # a bug, planted
        async with port.dial() as wire:
            for _ in range(2):
                await port.send(wire, request("aB3dE7x"))
                answer = await wire.answer()
                assert answer[:12] == b"HTTP/1.1 500"
                assert b"secret" not in answer

    of_both(scenario)


def test_a_shutdown_waits_for_a_look_up() -> None:
    """Who has asked is answered, and told that the connection ends."""
    held: list[tuple[LinkKey, TellValue]] = []

    async def scenario(port: Port) -> None:
        real = port.door.cache.begin
        port.door.cache.begin = lambda key, tell: held.append((key, tell))  # type: ignore[method-assign]  # held back
        async with port.dial() as wire:
            await port.send(wire, request("aB3dE7x"))
            await until(lambda: bool(held))
            port.stop.set()
            await until(lambda: not port.protocols[0].cycle.keep_alive)
            real(*held.pop())
            answer = await wire.answer()

        assert answer[:12] == b"HTTP/1.1 302"
        assert b"connection: close" in answer.lower()
        await asyncio.sleep(0)

    of_both(scenario)


def test_the_app_is_told_of_a_request_as_if_it_had_never_been_taken() -> None:
    """What is passed on after a look-up has the scope that uvicorn makes, and what was found out meanwhile."""
    seen: list[dict[str, Any]] = []

    async def scenario(port: Port) -> None:
        real = port.door.front._redirect

        async def watched(scope: Any) -> Any:
            seen.append({**scope, LOOKED: scope.get(LOOKED) is not None})
            return await real(scope)

        port.door.front._redirect = watched
        async with port.dial() as wire:
            await port.send(wire, request("nobody-has-it?a=b%20c&d", "X-Two: 1", "x-two: 2").replace(b"GET", b"HEAD"))
            assert (await wire.answer(head_only=True))[:12] == b"HTTP/1.1 404"

    of_both(scenario)
    past, through = seen
    assert (past.pop(LOOKED), through.pop(LOOKED)) == (True, False)
    del through[SHORTCUTS], past["client"], through["client"], past["server"], through["server"]
    assert past == through


def test_a_redirect_that_was_looked_up_is_counted_as_one() -> None:
    """Once, in the metric that says what became of requests for codes, and in the one that says how long they took."""

    def redirected() -> float:
        return REGISTRY.get_sample_value("redirects_total", {"result": "redirected"}) or 0.0

    def timed() -> float:
        labels = {"method": "GET", "route": "/{code}", "status": "302"}
        return REGISTRY.get_sample_value("http_server_request_duration_seconds_count", labels) or 0.0

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            before, timed_before = redirected(), timed()
            await wire.ask(request(LINK.short_code))
            await until(lambda: redirected() > before)
            await until(lambda: timed() > timed_before)
            assert (redirected(), timed()) == (before + 1, timed_before + 1)

    of_both(scenario)
