"""A table with a witness: a proxy before DynamoDB that notes which event rows a writer put, in which order."""

import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from linkmesh.local.ports import free_port


@dataclass(frozen=True, slots=True)
class Insert:
    """One statement that puts an event row, and whether the row was new."""

    at: float  # monotonic, when it was answered
    writer: str
    key: str
    version: int
    stored: bool


@dataclass
class Witness:
    """What all writers did."""

    inserts: list[Insert] = field(default_factory=list)

    def note(self, writer: str, request: bytes, answer: bytes) -> None:
        """A call went through: BatchExecuteStatement is looked into, nothing else."""
        statements = json.loads(request).get("Statements", [])
        responses = json.loads(answer).get("Responses", [])
        now = time.monotonic()
        for statement, response in zip(statements, responses, strict=False):
            pk, sk = (value.get("S", "") for value in (*statement["Parameters"], {}, {})[:2])
            if statement["Statement"].startswith("INSERT") and sk.startswith("E#"):
                key, version = pk.partition("#")[2], int(sk.partition("#")[2])
                self.inserts.append(Insert(now, writer, key, version, "Error" not in response))


@contextlib.asynccontextmanager
async def watched(endpoint: str, writer: str, witness: Witness) -> AsyncIterator[str]:
    """The endpoint that this writer is told; what it asks there goes to `endpoint`, and the witness sees it."""

    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with session.post(f"{endpoint}{request.path}", data=body, headers=headers) as response:
            answer = await response.read()
            if request.headers.get("X-Amz-Target", "").endswith("BatchExecuteStatement") and response.status == 200:
                witness.note(writer, body, answer)
            return web.Response(status=response.status, body=answer, headers={"Content-Type": response.content_type})

    app = web.Application()
    app.router.add_post("/{path:.*}", pass_on)
    port = free_port()
    async with aiohttp.ClientSession() as session:
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()
