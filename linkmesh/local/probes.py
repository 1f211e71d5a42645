"""Is it ready? One question per kind of server, asked in its own words over a fresh loopback connection."""

import asyncio
import re
import struct
from asyncio import StreamReader
from collections.abc import Awaitable, Callable
from typing import TypeVar

_TIMEOUT_S = 2.0
Answer = TypeVar("Answer")


async def kafka_ready(port: int) -> bool:
    """Tell whether the broker answers a metadata request and lists itself (it does so once it is unfenced)."""
    # Metadata v4: key 3, version 4, correlation id 1, no client id; no topics, no auto creation.
    request = struct.pack(">hhihiB", 3, 4, 1, -1, 0, 0)
    # Answer: length, correlation id, throttle time, number of brokers.
    head = await _ask(port, struct.pack(">i", len(request)) + request, lambda reader: reader.readexactly(16))
    return head is not None and int(struct.unpack(">iiii", head)[3]) >= 1


async def redis_ready(port: int) -> bool:
    """Tell whether the server has loaded its data and answers PING."""
    return await _ask(port, b"PING\r\n", lambda reader: reader.readexactly(5)) == b"+PONG"


async def http_status(port: int, path: str) -> int:
    """Return the status of GET `path`, 0 when nothing answers HTTP there."""
    return (await http_get(port, path))[0]


async def http_get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of GET `path`; status 0: nothing answers HTTP there. A body of unstated length is left."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    return await _ask(port, request.encode(), _http_answer) or (0, b"")


async def _http_answer(reader: StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")  # not up to the end: some servers leave the connection open
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(status[1]) if status else 0, body


async def _ask(port: int, request: bytes, answer: Callable[[StreamReader], Awaitable[Answer]]) -> Answer | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                return await answer(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
