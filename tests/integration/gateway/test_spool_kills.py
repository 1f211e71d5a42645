"""A real process that records clicks, killed -9 at random moments: what it said was recorded is found, once."""

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes.spools import Log, Wanted, drain, open_spools, until
from tests.integration.gateway import recording
from tests.integration.gateway.recording import PARTITIONS

_KILLS = 20
_LIFE_MAX_S = 0.15
_RUN = 1_000_000  # numbers of one process' clicks


def live_and_die(root: Path, said: Path, run: int, life_s: float) -> list[int]:
    """The clicks that a process said it had recorded before it was killed."""
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, recording.__file__, str(root), str(run * _RUN)]
    with said.open("wb") as out:
        process = subprocess.Popen(command, env=dict(os.environ) | {"PYTHONPATH": paths}, stdout=out)

    async def live() -> None:
        await until(lambda: said.stat().st_size > 0 or process.poll() is not None)
        await asyncio.sleep(life_s)

    try:
        asyncio.run(live())
    finally:
        process.kill()
        process.wait()
    return [int(line) for line in said.read_bytes().split(b"\n")[:-1]]


@pytest.mark.rule("S1", "S2", "S3", "P4")
def test_what_was_recorded_outlives_twenty_kills(tmp_path: Path) -> None:
    """Twenty processes on one root, one after the other, each killed in the middle of recording: everything that any of
    them had recorded before it said so is found under its own spool and sequence; no sequence is used twice, none is
    missing, nothing is there twice, and beside what was said at most the one click that each was recording."""
    root, log, said = tmp_path / "spool", Log(), list[int]()

    async def main() -> None:
        async with open_spools(root, Wanted(partitions=PARTITIONS, bytes_max=256 << 20)) as spools:
            await drain(spools, log, done=lambda: spools.clicks() == 0 and len(log.shipments) > 0)
            spools.close()
            await drain(spools, log, done=lambda: spools.empty)

    for run in range(_KILLS):
        said += live_and_die(root, tmp_path / "said", run, random.random() * _LIFE_MAX_S)
    asyncio.run(main())

    found = [click for partition in range(PARTITIONS) for click in log.clicks(partition)]
    numbers = Counter(number for _, _, number in found)
    assert [number for number in said if numbers[number] != 1] == []
    assert max(numbers.values()) == 1
    assert len({(spool, sequence) for spool, sequence, _ in found}) == len(found)
    last: Counter[str] = Counter()
    for spool, sequence, _ in found:
        assert sequence == last[spool] + 1
        last[spool] = sequence
    assert len(found) - len(said) <= _KILLS
    assert len({number // _RUN for number in said}) == _KILLS
    assert list(root.iterdir()) == []
