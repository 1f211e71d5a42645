"""Zipkin: the trace page. It keeps the newest spans in memory; the OTLP bridge feeds it."""

import asyncio
from pathlib import Path

from linkmesh.local import cache
from linkmesh.local.engines.engine import Engine
from linkmesh.local.java import FIRST_COMPILER_ONLY, START_FAST, AotCache, find_java
from linkmesh.local.probes import http_status

_SPANS_MAX = 20_000  # in a heap of 128 MB


class ZipkinEngine(Engine):
    """A server on `port`; `url` is its page."""

    name = "zipkin"

    def __init__(self, state: Path, port: int) -> None:
        super().__init__(state, port)
        self._jars = cache.folder_of(cache.ZIPKIN)
        self._java = find_java()
        self.aot = AotCache(cache.cache_folder() / "aot", self._jars.name, self._java)

    @property
    def url(self) -> str:
        """The address of its page and its interface."""
        return f"http://{self.address}"

    async def is_ready(self) -> bool:
        """Whether it takes spans."""
        return await http_status(self.port, "/health") == 200

    async def prepare(self) -> None:
        """Fetch it if need be."""
        await asyncio.to_thread(cache.fetch, cache.ZIPKIN)

    def command(self) -> list[str]:
        """Return the server's command line."""
        assert self.aot is not None, "set when this was made"
        # All three port settings are needed: without them it listens on every interface.
        settings = {
            "armeria.ports[0].ip": "127.0.0.1",
            "armeria.ports[0].port": self.port,
            "armeria.ports[0].protocols[0]": "http",
            "zipkin.storage.mem.max-spans": _SPANS_MAX,
            "zipkin.self-tracing.enabled": "false",
        }
        return [
            self._java.executable, "-Xmx128m", *START_FAST, FIRST_COMPILER_ONLY, *self.aot.flags(),
            *(f"-D{name}={value}" for name, value in settings.items()),
            "-cp", cache.class_path(self._jars), "zipkin.server.ZipkinServer",
        ]  # fmt: skip
