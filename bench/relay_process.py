"""python -m bench.relay_process REDIS KAFKA: the relay alone, wired as link_service wires it, until SIGTERM."""

import asyncio
import signal
import sys

import uvloop

from chassis.clock import SystemClock
from chassis.kafka.producer import Producer
from chassis.redis import open_redis
from link_service.adapters.outbox_redis import ANSWER_TIMEOUT_S, RedisOutbox
from link_service.loops.relay import Relay


async def main(redis_url: str, bootstrap: str) -> None:
    """Relays until SIGTERM."""
    clock, stop = SystemClock(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        open_redis(redis_url, timeout_s=ANSWER_TIMEOUT_S) as client,
        Producer(bootstrap, client_id="bench-relay", clock=clock, linger_ms=0) as producer,
    ):
        outbox = RedisOutbox(client, clock=clock)
        await Relay(outbox=outbox, sender=producer, clock=clock, candidate="bench").run(stop)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:3]))
