"""Webhook receivers: one server, a path for each endpoint, and what was told there."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from linkmesh.local.ports import free_port


@dataclass
class Receiver:
    """What it got: by endpoint and event id, the bodies."""

    url: str
    told: dict[str, dict[str, list[dict[str, object]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that takes everything (204)."""
    port = free_port()
    receiver = Receiver(f"http://127.0.0.1:{port}")

    async def take(request: web.Request) -> web.Response:
        receiver.told[request.match_info["endpoint"]][request.headers["webhook-id"]].append(
            json.loads(await request.read())
        )
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/{endpoint}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield receiver
    finally:
        await runner.cleanup()
