"""Time, as an argument: the only place that reads a clock."""

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What code that depends on time is given."""

    def now(self) -> datetime:
        """Wall clock, aware UTC. May jump."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, delay_s: float) -> None:
        """Returns after delay_s seconds of this clock."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Wall clock, aware UTC."""
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)  # seconds since the machine started; a redirect has no time for two calls

    async def sleep(self, delay_s: float) -> None:
        """Returns after delay_s seconds."""
        await asyncio.sleep(delay_s)


def epoch_ms() -> int:
    """Milliseconds since 1970 by the wall clock, for what has no time for a `datetime`."""
    return time.time_ns() // 1_000_000


async def sleep_until_stop(stop: asyncio.Event, delay_s: float) -> bool:
    """Waits for delay_s seconds or for stop, whichever comes first; returns whether it was stop."""
    try:
        async with asyncio.timeout(delay_s):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def uuid7(moment: datetime, entropy: bytes | None = None) -> str:
    """A UUIDv7 (RFC 9562 section 5.7) of that moment, as text; sorts by time to the millisecond.

    `entropy`: 10 bytes; drawn from the system when None.
    """
    random = entropy if entropy is not None else os.urandom(10)
    milliseconds = int(moment.timestamp() * 1000)
    value = bytearray(milliseconds.to_bytes(6, "big") + random)
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
