"""Is it ready? One question per kind of server, asked in its own words over a fresh loopback connection."""

import asyncio
import struct

_TIMEOUT_S = 2.0


async def kafka_ready(port: int) -> bool:
    """Tell whether the broker answers a metadata request and lists itself (it does so once it is unfenced)."""
    # Metadata v4: key 3, version 4, correlation id 1, no client id; no topics, no auto creation.
    request = struct.pack(">hhihiB", 3, 4, 1, -1, 0, 0)
    # Answer: length, correlation id, throttle time, number of brokers.
    head = await _ask(port, struct.pack(">i", len(request)) + request, answer_bytes=16)
    return head is not None and int(struct.unpack(">iiii", head)[3]) >= 1


async def redis_ready(port: int) -> bool:
    """Tell whether the server has loaded its data and answers PING."""
    return await _ask(port, b"PING\r\n", answer_bytes=5) == b"+PONG"


async def http_status(port: int, path: str) -> int:
    """Return the status of GET `path`, 0 when nothing answers HTTP there."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    head = await _ask(port, request.encode(), answer_bytes=12)  # "HTTP/1.1 200"
    return int(head[9:12]) if head is not None and head.startswith(b"HTTP/") and head[9:12].isdigit() else 0


async def _ask(port: int, request: bytes, *, answer_bytes: int) -> bytes | None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                return await reader.readexactly(answer_bytes)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
