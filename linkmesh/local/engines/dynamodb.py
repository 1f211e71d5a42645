"""A DynamoDB engine: dynoxide (SQLite inside, durable) on Linux x86-64, AWS's own DynamoDB Local elsewhere."""

import asyncio
from pathlib import Path

from linkmesh.local import cache
from linkmesh.local.engines.engine import Engine
from linkmesh.local.java import START_FAST, find_java
from linkmesh.local.probes import http_status


class DynamoDBEngine(Engine):
    """An engine on `port`; `endpoint` is what clients connect to (any credentials, region us-east-1)."""

    name = "dynamodb"

    def __init__(self, state: Path, port: int) -> None:
        super().__init__(state, port)
        self._files = cache.dynamodb_files()
        self._folder = cache.folder_of(self._files)

    @property
    def endpoint(self) -> str:
        """The address as clients take it."""
        return f"http://{self.address}"

    async def is_ready(self) -> bool:
        """Whether it answers HTTP (an unsigned question gets a refusal, which is an answer)."""
        return await http_status(self.port, "/") > 0

    async def prepare(self) -> None:
        """Fetch it if need be."""
        await asyncio.to_thread(cache.fetch, self._files)

    def command(self) -> list[str]:
        """Return the engine's command line."""
        if self._files is cache.DYNOXIDE:
            database = str(self.data / "dynoxide.db")
            return [str(self._folder / "dynoxide"), "serve", "--port", str(self.port), "--db-path", database]
        return [
            find_java().executable, "-Xmx256m", *START_FAST, "-cp", cache.class_path(self._folder),
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            "-port", str(self.port), "-sharedDb", "-dbPath", str(self.data), "-disableTelemetry",
        ]  # fmt: skip
