"""The long form: `python -m tests.chaos --minutes 23 --seed 7`. Exit 0 if nothing was lost, wrong or stale."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run
from tests.chaos.schedule import SHORT, every_step, long_schedule, only, short_schedule
from tests.chaos.telling import told

FAULTS_MIN = 100
ACKNOWLEDGED_MIN = 20_000


def say(line: str) -> None:
    """One line, at once: somebody watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs it and tells."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Break Linkmesh under load, and judge.")
    parser.add_argument("--minutes", type=float, default=23.0, help="how long things are broken")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="what decides the order")
    parser.add_argument("--short", action="store_true", help="the steps of the short form")
    parser.add_argument("--only", default="", help="only steps in whose name this stands, again and again")
    parser.add_argument("--state", type=Path, help="where to keep data, logs and history (default: a new folder)")
    wanted = parser.parse_args()
    steps = (short_schedule if wanted.short else long_schedule)(wanted.seed)
    if wanted.only:
        try:
            steps = only(wanted.only, SHORT if wanted.short else every_step())
        except ValueError as error:
            parser.error(str(error))
    state = wanted.state or Path(tempfile.mkdtemp(prefix="linkmesh-chaos-"))
    say(f"seed {wanted.seed}, {wanted.minutes:g} minutes, in {state}")
    report = asyncio.run(run(state, seed=wanted.seed, seconds=wanted.minutes * 60, steps=steps, say=say))
    for line in told(report):
        say(line)
    enough = (
        wanted.short
        or wanted.only
        or (len(report.book.faults) >= FAULTS_MIN and report.verdict.acknowledged >= ACKNOWLEDGED_MIN)
    )
    if not enough:
        say(f"not enough: at least {FAULTS_MIN} faults and {ACKNOWLEDGED_MIN} acknowledged are wanted")
    if report.good and not wanted.state:
        shutil.rmtree(state)
    return 0 if report.good and enough else 1


if __name__ == "__main__":
    sys.exit(main())
