"""The short form: three minutes, a dozen faults and more, Kafka away for 20 s."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import short_schedule
from tests.chaos.telling import told

SECONDS = 110.0  # of breaking; start, rest and judgement take the rest of three minutes
FAULTS_MIN = 12


@pytest.mark.timeout(600)  # on a machine three times slower
@pytest.mark.rule("P1", "P2", "P3", "P6", "P7", "O1", "O2", "W1", "B1", "H1")
def test_nothing_is_lost_wrong_or_stale_whatever_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Processes and engines die and hang under load; then every promise is kept, by history and by rows.

    The same again: `make chaos ARGS="--short --minutes 2 --seed N"`.
    """

    def say(line: str) -> None:
        with capsys.disabled():  # a person watches it for three minutes, and needs the seed if it hangs
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    seed = random.randrange(1_000_000)
    say(f"\nseed {seed}")
    report = asyncio.run(
        run(tmp_path, seed=seed, seconds=SECONDS, steps=short_schedule(seed), say=say, faults_min=FAULTS_MIN)
    )
    lines = told(report)
    say("\n".join(lines[-3:]))

    assert report.good, "\n".join(lines)
    assert len(report.book.faults) >= FAULTS_MIN, lines[-1]
