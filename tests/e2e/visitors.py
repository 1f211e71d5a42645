"""Visitors who follow links as fast as they are answered, and keep books of what they sent and what came back."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

CONNECTIONS = 8
_REQUEST_TIMEOUT_S = 30.0  # a gateway that is stopped answers when it goes on
_PAUSE_S = 0.01  # between two visits of one connection: some hundred a second leave the machine room to recover
_RECONNECT_S = 0.05
_AGENT = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36"


@dataclass
class Books:
    """By code: `sent` before each request, `received` behind each 302. What is between them nobody was told of."""

    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    other: Counter[int] = field(default_factory=Counter)  # answers that were no 302, by status
    broken: int = 0  # requests whose connection ended before an answer

    def judge(self, counted: dict[str, int]) -> None:
        """Every visit that was answered is counted, and none twice.

        Raises:
            AssertionError: names each code whose count cannot be.
        """
        wrong = {
            code: (self.received[code], counted[code], self.sent[code])
            for code in counted
            if not self.received[code] <= counted[code] <= self.sent[code]
        }
        assert not wrong, f"code: (received, counted, sent): {wrong}"
        assert self.sent.total() - self.received.total() - self.other.total() == self.broken, "the books do not add up"


@contextmanager
def visiting(port: int, codes: Sequence[str]) -> Iterator[Books]:
    """Visitors follow these links over kept connections, in turn, until the block ends."""
    books, over = Books(), threading.Event()

    async def visit(first: int) -> None:
        number = first
        while not over.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(_RECONNECT_S)
                continue
            try:
                while not over.is_set():
                    code = codes[number % len(codes)]
                    number += 1
                    books.sent[code] += 1
                    status = await _follow(reader, writer, code)
                    if status == 302:
                        books.received[code] += 1
                    else:
                        books.other[status] += 1
                    await asyncio.sleep(_PAUSE_S)
            except (OSError, asyncio.IncompleteReadError):
                books.broken += 1
                await asyncio.sleep(_RECONNECT_S)  # or it would connect to what is just being killed, and break twice
            finally:
                writer.close()

    async def all_visits() -> None:
        async with asyncio.TaskGroup() as tasks:
            for connection in range(CONNECTIONS):
                tasks.create_task(visit(connection))

    thread = threading.Thread(target=lambda: asyncio.run(all_visits()), name="visitors")
    thread.start()
    try:
        yield books
    finally:
        over.set()
        thread.join()


async def _follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, code: str) -> int:
    """The status of one visit."""
    writer.write(b"GET /%b HTTP/1.1\r\nhost: a\r\nuser-agent: %b\r\n\r\n" % (code.encode(), _AGENT))
    async with asyncio.timeout(_REQUEST_TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0].partition(b":")[2]))
    return int(head[9:12])
