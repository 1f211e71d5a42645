"""python -m tests.mutants [--long] [--list] [--only NAME …] [--workers N]

Prints a line for each mutant and exits 1 unless every one of them was killed, by the tests it names.
"""

import argparse
import os
import queue
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.mutants.catalogue import ALL
from tests.mutants.mutant import Mutant
from tests.mutants.trial import Fate, Result, sick, tried
from tests.mutants.working_copy import WorkingCopy

_WORKERS_MAX = 2  # each runs pytest and perhaps an engine
_HEALTHY_TIMEOUT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutants asked for; returns 0 if all were killed."""
    asked = _parser().parse_args(arguments)
    wanted = [m for m in ALL if m.name in asked.only] if asked.only else [m for m in ALL if m.slow == asked.long]
    unknown = set(asked.only) - {mutant.name for mutant in wanted}
    if unknown:
        _say(f"no such mutant: {', '.join(sorted(unknown))}")
        return 1
    if asked.list:
        for mutant in wanted:
            _say(f"{mutant.rule:<4} {mutant.name}: {mutant.why}")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="linkmesh-mutants-") as folder:
        results = _all_tried(wanted, Path(folder), workers=asked.workers)
    _say(f"{summary_of(results)}  ({time.monotonic() - began:.0f} s)")
    return 0 if results and all(result.fate is Fate.KILLED for result in results) else 1


def _all_tried(mutants: Sequence[Mutant], folder: Path, *, workers: int) -> list[Result]:
    """The results of all, each told as soon as it is known."""
    first = WorkingCopy.made_in(folder / "0")
    problems = sick(first, {node for mutant in mutants for node in mutant.killed_by}, timeout_s=_HEALTHY_TIMEOUT_S)
    results: list[Result] = []
    fit: list[Mutant] = []
    for mutant in mutants:
        problem = next((f"{node}: {problems[node]}" for node in mutant.killed_by if node in problems), "")
        if problem:
            results.append(Result(mutant, Fate.ERROR, f"its killer is red without it: {problem}", 0.0))
            _say(line_of(results[-1]))
        else:
            fit.append(mutant)
    copies = [first, *(first.copied_to(folder / str(number)) for number in range(1, workers))]
    for result in _tried_side_by_side(fit, copies):
        _say(line_of(result))
        results.append(result)
    return results


def _tried_side_by_side(mutants: Sequence[Mutant], copies: Sequence[WorkingCopy]) -> Iterator[Result]:
    free: queue.SimpleQueue[WorkingCopy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def work(mutant: Mutant) -> Result:
        copy = free.get()
        try:
            return tried(mutant, copy)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from (done.result() for done in as_completed([pool.submit(work, mutant) for mutant in mutants]))


def summary_of(results: Sequence[Result]) -> str:
    """The last line."""
    fates = Counter(result.fate for result in results)
    unknown = fates[Fate.ERROR] + fates[Fate.TIMED_OUT]
    rest = f", without a verdict {unknown}" if unknown else ""
    return f"mutants {len(results)}, killed {fates[Fate.KILLED]}, survived {fates[Fate.SURVIVED]}{rest}"


def line_of(result: Result) -> str:
    """What a person reads."""
    mutant = result.mutant
    return f"{result.fate.value:<9} {mutant.name:<42} {mutant.rule:<4} {result.told}  {result.seconds:.1f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--long", action="store_true", help="those that need Kafka or kill processes")
    parser.add_argument("--list", action="store_true", help="say what they are, and run none")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these, whichever they are")
    workers = min(_WORKERS_MAX, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers, help=f"how many at the same time ({workers})")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
