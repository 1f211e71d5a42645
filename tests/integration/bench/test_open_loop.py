"""The generator against a server: it counts what the server saw, and who hangs pays for everybody who waited."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.open_loop import get_requests, play
from bench.paced import Plan, Result

FOUND = b"HTTP/1.1 302 Found\r\nlocation: https://example.com/\r\ncontent-length: 0\r\n\r\n"
GONE = b"HTTP/1.1 410 Gone\r\ncontent-length: 4\r\n\r\ngone"


@dataclass
class Server:
    """Answers as `answer` says; None hangs up instead."""

    answer: Callable[[int, bytes], Awaitable[bytes | None]]
    seen: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.seen += 1
                answer = await self.answer(self.seen, head)
                if answer is None:
                    break
                writer.write(answer[:20])  # in two pieces: half an answer is none
                await writer.drain()
                writer.write(answer[20:])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """The port."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]


def result_of(server: Server, codes: list[str], *, rate_per_s: float, count: int) -> Result:
    """What the generator says of `count` requests to it."""

    async def run() -> Result:
        async with server.listening() as port:
            order = [number % len(codes) for number in range(count)]
            requests = get_requests(port, codes, {"User-Agent": "bench"})
            return await play(Plan(port=port, rate_per_s=rate_per_s, connections=2, requests=requests, order=order))

    return asyncio.run(run())


def test_whoever_was_kept_waiting_counts() -> None:
    """A server that hangs for half a second delays every request that is due in that time, not only those it has: a
    quarter of all here, though it was slow with two of 400."""
    stalled_until = 0.0

    async def stalls_once(number: int, _head: bytes) -> bytes:
        nonlocal stalled_until
        now = asyncio.get_running_loop().time()
        if number == 100:
            stalled_until = now + 0.5
        await asyncio.sleep(max(0.0, stalled_until - now))
        return FOUND

    server = Server(stalls_once)
    result = result_of(server, ["abc"], rate_per_s=200, count=400)

    assert result.sent == result.answered == server.seen == 400
    assert result.p99_ms > 350
    assert result.rps < 220


def test_every_request_of_a_closed_loop_is_sent_once() -> None:
    """As fast as they are answered, each path as often as it stands in the order."""
    heads: list[bytes] = []

    async def notes(_number: int, head: bytes) -> bytes:
        heads.append(head.partition(b" HTTP")[0])
        return FOUND

    result = result_of(Server(notes), ["a", "b"], rate_per_s=0, count=501)

    assert (result.sent, result.answered, result.wrong, result.lost) == (501, 501, 0, 0)
    assert (heads.count(b"GET /a"), heads.count(b"GET /b")) == (251, 250)


def test_what_was_not_answered_as_it_should_is_told() -> None:
    """Another status is wrong, a connection that breaks loses its request, and neither ends the run."""

    async def now_and_then(number: int, _head: bytes) -> bytes | None:
        return None if number % 10 == 0 else GONE if number % 10 == 5 else FOUND

    server = Server(now_and_then)
    result = result_of(server, ["abc"], rate_per_s=500, count=200)

    assert (result.answered, result.wrong, result.lost) == (160, 20, 20)
    assert server.seen == result.sent == 200
