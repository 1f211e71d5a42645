"""A process that records clicks for ever and says which are recorded: `python recording.py ROOT FIRST`.

It writes a click's number to its standard output when the recorder has returned, as a gateway then writes the answer.
"""

import asyncio
import os
import sys
from pathlib import Path

from chassis.clock import SystemClock, epoch_ms
from contracts.link import LinkKey, UserId
from gateway.adapters.click_recorder import SpoolClickRecorder
from gateway.adapters.click_spools import ClickSpools, SpoolOptions
from gateway.domain.visitors import Visitors
from gateway.ports import ClickTarget

PARTITIONS = 4
_TURN = 20  # clicks in one turn of the loop


async def main() -> None:
    """Records until it is killed."""
    root, number = Path(sys.argv[1]), int(sys.argv[2])
    options = SpoolOptions(root=root, partitions=PARTITIONS, bytes_max=64 << 20, segment_bytes=8192)
    async with ClickSpools(options, clock=SystemClock()) as spools, asyncio.TaskGroup() as tasks:
        tasks.create_task(spools.run(asyncio.Event()))
        recorder = SpoolClickRecorder(
            spools.append, partitions=PARTITIONS, visitors=Visitors(b"k" * 32), now_ms=epoch_ms
        )
        headers = [(b"user-agent", b"Mozilla/5.0 Chrome/143.0"), (b"referer", b"https://news.example/")]
        while True:
            for _ in range(_TURN):
                target = ClickTarget(LinkKey(f"code{number}"), UserId("alice"))
                if recorder.record(target, "GET", headers, "203.0.113.9", None):
                    os.write(1, b"%d\n" % number)
                number += 1
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main())
