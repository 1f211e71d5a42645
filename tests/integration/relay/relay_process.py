"""python -m tests.integration.relay.relay_process REDIS KAFKA CANDIDATE: a relay until SIGTERM."""

import asyncio
import signal
import sys

from tests.integration.relay.worlds import open_relay


async def main() -> None:
    """Relays until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_relay(*sys.argv[1:4]) as relay:
        await relay.run(stop)


if __name__ == "__main__":
    asyncio.run(main())
