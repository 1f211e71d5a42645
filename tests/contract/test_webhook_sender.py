"""What webhook's Sender promises, on the fake and over real HTTP; and what the guard of the real one lets through."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from linkmesh.local.ports import free_port
from tests.fakes.webhook import FakeSender
from webhook.adapters.sender_http import BlockedAddressError, guard, open_sender
from webhook.ports import Sender

TIMEOUT_S = 0.5
TRUSTED = ("127.0.0.1", "localhost")


@dataclass
class Subject:
    """A sender, and where the receivers of tests/fakes/webhook.py live for it."""

    sender: Sender
    base: str
    refused: str
    bodies: list[str] = field(default_factory=list)


Check = Callable[[Subject], Coroutine[None, None, None]]


@pytest.fixture(params=["fake", "http"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check against one kind of sender."""
    if request.param == "fake":
        fake = FakeSender(timeout_s=TIMEOUT_S)
        return lambda check: asyncio.run(check(Subject(fake, "https://example.org", "https://example.org/refused")))
    return lambda check: asyncio.run(_over_http(check))


async def _over_http(check: Check) -> None:
    async with serving() as subject:
        await check(subject)


@asynccontextmanager
async def serving(trusted: tuple[str, ...] = TRUSTED, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Subject]:
    """Real receivers on this machine, and a sender that trusts some hosts."""
    port, closed = free_port(), free_port()
    released = asyncio.Event()
    bodies: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.text())
        parts = request.path.strip("/").split("/")
        match parts:
            case ["hang"]:
                await released.wait()
                return web.Response()
            case ["endless"]:
                response = web.StreamResponse()
                await response.prepare(request)
                while not released.is_set():
                    await response.write(b"x" * 65536)
                return response
            case ["stalls"]:
                stalled = web.StreamResponse(status=201)
                await stalled.prepare(request)
                await stalled.write(b"x")
                await released.wait()
                return stalled
            case ["302"]:
                return web.Response(status=302, headers={"location": "/204"})
            case [status, wait]:
                return web.Response(status=int(status), headers={"retry-after": wait})
            case _:
                return web.Response(status=int(parts[0]), text="thank you")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with open_sender(trusted_hosts=trusted, timeout_s=timeout_s) as sender:
            yield Subject(sender, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{closed}/", bodies)
    finally:
        released.set()
        await runner.cleanup()


@pytest.mark.rule("H2")
def test_whatever_a_receiver_does_is_an_answer(run: Callable[[Check], None]) -> None:
    """The status and Retry-After as they came, redirects not followed; 0 and a sentence where there is no answer."""

    async def check(subject: Subject) -> None:
        for status in (200, 204, 302, 400, 410, 500):
            answer = await subject.sender.send(f"{subject.base}/{status}", {}, "{}")
            assert (answer.status, answer.error, answer.retry_after) == (status, "", "")
        slow_down = await subject.sender.send(f"{subject.base}/503/7", {}, "{}")
        assert (slow_down.status, slow_down.retry_after) == (503, "7")
        for url in (f"{subject.base}/hang", subject.refused):
            nothing = await subject.sender.send(url, {}, "{}")
            assert nothing.status == 0
            assert nothing.error.endswith(".")

    run(check)


@pytest.mark.parametrize(
    ("path", "status", "timeout_s", "within_s"),
    [("endless", 200, 15, 1.5), ("stalls", 201, 15, 5), ("stalls", 201, 0.5, 1.5)],
)
def test_a_body_without_end_does_not_change_the_answer(
    path: str, status: int, timeout_s: float, within_s: float
) -> None:
    """The status decides; of the body no more than 64 KiB are read, and it is waited for 2 s at most, never beyond the
    time of the attempt: the lease counts on that."""

    async def check() -> None:
        async with serving(timeout_s=timeout_s) as subject, asyncio.timeout(within_s):
            answer = await subject.sender.send(f"{subject.base}/{path}", {}, "{}")
            assert answer.status == status

    asyncio.run(check())


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"", 0),
        (b"\x00\xff" * 100, 0),
        (b"SSH-2.0-OpenSSH_9.9\r\n", 0),
        (b"HTTP/1.1 abc OK\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", 200),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nshort", 200),
        (b"HTTP/1.1 503 \xff\xfe\r\nretry-after: \xff\r\ncontent-length: 0\r\n\r\n", 503),
    ],
)
def test_garbage_is_an_answer_too(garbage: bytes, status: int) -> None:
    """A receiver that speaks no HTTP, or breaks off, is told of in words; a status that came counts."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(garbage)
        writer.close()

    async def check() -> None:
        port = free_port()
        async with (
            await asyncio.start_server(handle, "127.0.0.1", port),
            open_sender(trusted_hosts=TRUSTED, timeout_s=TIMEOUT_S) as sender,
        ):
            answer = await sender.send(f"http://127.0.0.1:{port}/", {}, "{}")
            assert answer.status == status

    asyncio.run(check())


def test_nothing_that_an_owner_is_told_names_an_address() -> None:
    """The reason of a failed connection tells what happened, not where: it must not map our network."""

    async def check() -> None:
        async with serving() as subject:
            for url in (subject.refused, "http://localhost.invalid/", "http://127.0.0.1:99999/", "http://[::1"):
                answer = await subject.sender.send(url, {}, "{}")
                assert answer.status == 0
                assert not {"127.", "::1", "localhost"} & set(answer.error.split())
                assert "127.0.0.1" not in answer.error

    asyncio.run(check())


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]",
    ],
)  # fmt: skip
def test_a_receiver_on_this_machine_is_not_reached_by_any_of_its_names(host: str) -> None:
    """Unless a host is trusted, no spelling of a private address is connected to, and no name that leads to one."""

    async def check() -> None:
        async with serving(trusted=("somebody.example",)) as subject:
            port = subject.base.rpartition(":")[2]
            answer = await subject.sender.send(f"http://{host}:{port}/204", {}, "{}")
            assert answer.status == 0
            assert subject.bodies == []

    asyncio.run(check())


def test_a_trusted_host_does_not_open_the_way_to_others() -> None:
    """Trust is in the host as it is written: another name of the same address stays blocked."""

    async def check() -> None:
        async with serving(trusted=("127.0.0.1",)) as subject:
            port = subject.base.rpartition(":")[2]
            assert (await subject.sender.send(f"http://127.0.0.1:{port}/204", {}, "{}")).status == 204
            blocked = await subject.sender.send(f"http://localhost:{port}/204", {}, "{}")
            assert (blocked.status, blocked.error) == (0, "The host has no public address.")

    asyncio.run(check())


@pytest.mark.parametrize(
    ("address", "passes"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.0.0.8", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
    ],
)
def test_the_guard_passes_public_addresses_only(address: str, passes: bool) -> None:
    """The address that is about to be connected to decides, whatever name led to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443))

    if passes:
        guard(info).close()
    else:
        with pytest.raises(BlockedAddressError):
            guard(info)
