"""What `linkmesh status` hears from the processes themselves."""

import asyncio
from asyncio import StreamReader, StreamWriter

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from linkmesh.local import readiness
from linkmesh.local.dead_letters import stopped_groups


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, b'{"ready": false, "reasons": {"kafka": "away"}}', {"writer": {"kafka": "away"}}),
        (200, b'{"ready": true, "reasons": {}}', {}),
        (503, b"something else", {}),
        (503, b"[]", {}),
    ],
)
def test_reasons_are_those_of_who_is_not_ready(status: int, body: bytes, expected: dict[str, dict[str, str]]) -> None:
    """One that is ready, is gone or speaks another language gives no reason, and keeps nobody from giving theirs."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} S\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async def scenario() -> dict[str, dict[str, str]]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.to_thread(readiness.reasons, {"admin_ports": {"gone": 1, "writer": port}})

    assert asyncio.run(scenario()) == expected


def test_who_has_stopped_itself() -> None:
    """The process knows it also after the letters it counted were purged."""
    registry = CollectorRegistry()
    gauge = Gauge("consumer_stopped", "1 while the group has stopped itself.", ("group",), registry=registry)
    gauge.labels("database-writer").set(1)
    gauge.labels("webhooks").set(0)

    assert stopped_groups(generate_latest(registry).decode()) == {"database-writer"}
