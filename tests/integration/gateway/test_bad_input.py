"""What a stranger may send instead of HTTP, with redirects past the app and without: the same bytes come back, the
connection ends where nothing can follow, and the process goes on."""

import asyncio
import contextlib
import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.gateway_peers import make_link
from tests.integration.gateway.doors import Port, Setting, serving

LINK = make_link("aB3dE7x")
PLAIN = b"GET /aB3dE7x HTTP/1.1\r\nHost: lm.example\r\nUser-Agent: Mozilla/5.0 Chrome/143.0\r\n\r\n"
_HASTE_S = 0.4  # of limits that a test waits for


async def told_by(port: Port, sent: bytes, *, limit_s: float) -> bytes:
    """All that comes back to these bytes until the connection ends; without what is another one for each request.

    Raises:
        TimeoutError: it does not end.
    """
    told = b""
    async with port.dial() as wire, asyncio.timeout(limit_s):
        with contextlib.suppress(ConnectionError):
            wire.writer.write(sent)
            while piece := await wire.reader.read(1 << 16):
                told += piece
    return re.sub(rb'("trace_id": ?"|; )\w{32}', rb"\1", told)


def told_both_ways(sent: Sequence[bytes]) -> list[list[bytes]]:
    """What comes back to each, past the app where possible and by the app alone; each on a connection of its own."""
    told: list[list[bytes]] = []

    async def scenario(port: Port) -> None:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(told_by(port, each, limit_s=20.0)) for each in sent]
        told.append([each.result() for each in asking])
        async with port.dial() as wire:
            assert (await wire.ask(PLAIN)).startswith(b"HTTP/1.1 302 ")

    for fast in (True, False):
        serving(scenario, Setting(links=(LINK,), fast=fast, keep_alive_s=_HASTE_S, headers_timeout_s=_HASTE_S))
    return told


NOISE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no method": b"HELLO\r\n\r\n",
    "a method of no HTTP": b"BREW /aB3dE7x HTTP/1.1\r\n\r\n",
    "a small method": b"get /aB3dE7x HTTP/1.1\r\n\r\n",
    "a space in the target": b"GET /aB3d E7x HTTP/1.1\r\n\r\n",
    "two spaces": b"GET  /aB3dE7x HTTP/1.1\r\n\r\n",
    "a tab": b"GET\t/aB3dE7x\tHTTP/1.1\r\n\r\n",
    "a zero in the target": b"GET /aB3dE7x\x00 HTTP/1.1\r\n\r\n",
    "no ASCII in the target": b"GET /aB3dE7\xc3\xa4 HTTP/1.1\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\n\r\n",
    "a target without a slash": b"GET aB3dE7x HTTP/1.1\r\n\r\n",
    "an absolute target of nothing": b"GET http:// HTTP/1.1\r\n\r\n",
    "no version": b"GET /aB3dE7x\r\n\r\n",
    "HTTP/9.9": b"GET /aB3dE7x HTTP/9.9\r\n\r\n",
    "HTTP/11": b"GET /aB3dE7x HTTP/11\r\n\r\n",
    "small http": b"GET /aB3dE7x http/1.1\r\n\r\n",
    "lines that end in LF": PLAIN.replace(b"\r\n", b"\n"),
    "lines that end in CR": PLAIN.replace(b"\r\n", b"\r"),
    "no colon": b"GET /aB3dE7x HTTP/1.1\r\nHost x\r\n\r\n",
    "no name": b"GET /aB3dE7x HTTP/1.1\r\n: x\r\n\r\n",
    "a space before the colon": b"GET /aB3dE7x HTTP/1.1\r\nHost : x\r\n\r\n",
    "a zero in a name": b"GET /aB3dE7x HTTP/1.1\r\nHo\x00st: x\r\n\r\n",
    "a zero in a value": b"GET /aB3dE7x HTTP/1.1\r\nHost: x\x00\r\n\r\n",
    "a line that goes on": b"GET /aB3dE7x HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "two lengths": b"GET /aB3dE7x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length below nothing": b"GET /aB3dE7x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "an endless length": b"GET /aB3dE7x HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a length and pieces": b"GET /aB3dE7x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "a piece of no length": b"POST /api/links HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a target of 64 KiB": b"GET /" + b"x" * (64 << 10) + b" HTTP/1.1\r\n\r\n",
    "a query of 64 KiB": b"GET /aB3dE7x?" + b"x" * (64 << 10) + b" HTTP/1.1\r\n\r\n",
    "a header of 64 KiB": b"GET /aB3dE7x HTTP/1.1\r\nX: " + b"x" * (64 << 10) + b"\r\n\r\n",
    "a name of 64 KiB": b"GET /aB3dE7x HTTP/1.1\r\n" + b"x" * (64 << 10) + b": x\r\n\r\n",
    "200 000 headers": b"GET /aB3dE7x HTTP/1.1\r\n" + b"a:\r\n" * 200_000 + b"\r\n",
    "17 KiB of headers": b"GET /aB3dE7x HTTP/1.1\r\n" + b"abc: defg\r\n" * 1650 + b"\r\n",
    "CONNECT": b"CONNECT lm.example:443 HTTP/1.1\r\n\r\n",
    "endless empty lines": b"\r\n" * 50_000,
}

TAKEN = ("two spaces", "no version")  # by the parser, which is generous there


@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind redirects"])
def test_what_is_no_http_is_told_so_alike(behind: bool) -> None:
    """400 and 431 in our form and the end of the connection, or silence and the end; alone, and behind redirects that
    are answered first, also in the same read."""
    front = PLAIN * 3 if behind else b""

    fast, slow = told_both_ways([front + noise for noise in NOISE.values()])

    for name, by_fast, by_app in zip(NOISE, fast, slow, strict=True):
        statuses = re.findall(rb"HTTP/1.1 (\d{3})", by_fast)
        if behind:
            assert statuses[:3] == [b"302"] * 3, name
            last = by_fast.split(b"HTTP/1.1 ")[-1]  # the app has not answered when the noise ends the connection
            assert last in by_app or not by_app, name
        else:
            assert by_fast == by_app, name
            assert statuses in ([], [b"400"], [b"404"], [b"405"], [b"431"]) or name in TAKEN, (name, statuses)
            assert (statuses == [b"431"]) == ("KiB" in name or "000 headers" in name), name


@pytest.mark.parametrize("lines", [1, 160])
@pytest.mark.parametrize("fast", [True, False])
def test_16_kib_of_headers_pass(lines: int, fast: bool) -> None:
    """Up to the limit a request is like any other, in one line or in many, in one read or in two."""
    start = b"GET /aB3dE7x HTTP/1.1\r\n"
    share = (16_300 - len(start)) // lines
    block = start + b"".join(b"x-%03d: %s\r\n" % (number, b"v" * (share - 9)) for number in range(lines)) + b"\r\n"

    async def scenario(port: Port) -> None:
        async with port.dial() as wire:
            assert (await wire.ask(block)).startswith(b"HTTP/1.1 302 ")
            await port.send(wire, block[:9000])
            assert (await wire.ask(block[9000:])).startswith(b"HTTP/1.1 302 ")
            assert (await wire.ask(PLAIN * 400 + block)).startswith(b"HTTP/1.1 302 ")
            for _ in range(400):
                assert (await wire.answer()).startswith(b"HTTP/1.1 302 ")
            assert len(port.asked) == (0 if fast else 403)

    serving(scenario, Setting(links=(LINK,), fast=fast))


PIECES = [
    *(b"GET ", b"HEAD ", b"POST ", b"/", b"aB3dE7x", b"/aB3dE7x", b"?", b"%", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"),
    *(
        b"Host: x\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Upgrade: x\r\n",
        b"Expect: 100-continue",
    ),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"0\r\n\r\n", b"abc"),
    *(b" ", b":", b"\x00", b"\xff", b"\t", PLAIN, PLAIN[:-2], PLAIN.replace(b"GET", b"HEAD")),
]
SENT = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    st.tuples(st.integers(0, len(PLAIN) - 1), st.binary(min_size=1, max_size=3)).map(
        lambda change: PLAIN[: change[0]] + change[1] + PLAIN[change[0] + 1 :]
    ),
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(SENT, min_size=40, max_size=40))
def test_random_bytes_are_answered_alike(sent: list[bytes]) -> None:
    """Bytes by chance, requests put together by chance, and requests with one letter changed: what the app would say is
    said, to the byte, or more of it where the connection ended before the app had answered."""
    fast, slow = told_both_ways(sent)

    for each, by_fast, by_app in zip(sent, fast, slow, strict=True):
        answers, refusals = _split(by_fast)
        assert (answers, refusals) == _split(by_app) or _was_cut(by_fast, by_app), each


def _split(told: bytes) -> tuple[list[bytes], list[bytes]]:
    """Answers, and how the protocol itself refused."""
    parts = [b"HTTP/1.1 " + part for part in told.split(b"HTTP/1.1 ")[1:]]
    refused = [part for part in parts if b"malformed_request" in part or b"headers_too_large" in part]
    return [part for part in parts if part not in refused], refused


def _was_cut(by_fast: bytes, by_app: bytes) -> bool:
    """Whether a refusal overtook the app's answers, which then never came."""
    (answers, refused), (app_answers, app_refused) = _split(by_fast), _split(by_app)
    return refused == app_refused and len(refused) == 1 and app_answers == answers[: len(app_answers)]
