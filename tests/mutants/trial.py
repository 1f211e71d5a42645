"""One trial: pytest on a copy, and what its end says about the mutant in it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.mutants.mutant import DoesNotApplyError, Mutant
from tests.mutants.witness import VARIABLE
from tests.mutants.working_copy import WorkingCopy

_FAILED = 1  # pytest's exit code for "some tests failed"; 2 to 5 are no verdict on the product
_PASSED = 0
_PURE = "tests/unit/"  # asks for no engine; without the fixtures that could start them pytest starts in half the time
_LAST_WORDS_S = 10.0  # after the deadline, so that fixtures can stop their engines


class Fate(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"  # no test noticed, or not every one that should
    TIMED_OUT = "timed out"
    ERROR = "error"  # nothing was proven: it does not apply, or pytest could not run


@dataclass(frozen=True, slots=True)
class Failure:
    """A test whose own body failed: because it said no (`asserted`), or because something broke under it."""

    test: str
    asserted: bool
    error: str


@dataclass(frozen=True, slots=True)
class Run:
    """How a pytest run ended. `code` None: it was ended at its deadline."""

    code: int | None
    failures: tuple[Failure, ...]
    output: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """A mutant's fate, with the test that told or the reason why nothing is known."""

    mutant: Mutant
    fate: Fate
    told: str
    seconds: float


def run_tests(copy: WorkingCopy, nodes: Sequence[str], *, timeout_s: float) -> Run:
    """Runs these tests in the copy. Returns also when they hang."""
    notes = copy.folder / "witness.jsonl"
    notes.write_text("")
    pure = all(node.startswith(_PURE) for node in nodes)
    options = ["--tb=short", *(["--noconftest"] if pure else [])]
    command = [sys.executable, "-m", "pytest", "-p", "tests.mutants.witness", *options, *nodes]
    environment = {**copy.environment(), VARIABLE: str(notes)}
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=copy.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        code: int | None
        try:
            output, _ = process.communicate(timeout=timeout_s)
            code = process.returncode
        except subprocess.TimeoutExpired:
            output, code = _ended(process), None
        except BaseException:
            _ended(process)  # its engines end with it
            raise
    failures = tuple(Failure(**json.loads(line)) for line in notes.read_text("utf-8").splitlines())
    return Run(code, failures, output, time.monotonic() - began)


def judge(mutant: Mutant, run: Run) -> tuple[Fate, str]:
    """The fate of a mutant by the run of its killers: killed only if each of them said no."""
    if run.code is None:
        return Fate.TIMED_OUT, f"no end after {mutant.timeout_s:.0f} s"
    if run.code == _PASSED:
        return Fate.SURVIVED, "all of " + ", ".join(mutant.killed_by) + " passed"
    if run.code != _FAILED:
        return Fate.ERROR, f"pytest ended with {run.code}:\n{_end_of(run.output)}"
    for node in mutant.killed_by:
        failures = [failure for failure in run.failures if is_of(failure.test, node)]
        if not failures:
            return Fate.SURVIVED, f"not noticed by {node}:\n{_end_of(run.output)}"
        if not any(failure.asserted or _is_named(failure, mutant.dies_of) for failure in failures):
            return Fate.ERROR, f"{node} did not say no, but broke: {failures[0].error}"
    return Fate.KILLED, mutant.killed_by[0]


def tried(mutant: Mutant, copy: WorkingCopy) -> Result:
    """Breaks the copy, runs the killers, mends the copy."""
    try:
        with copy.broken_by(mutant):
            run = run_tests(copy, mutant.killed_by, timeout_s=mutant.timeout_s)
    except (DoesNotApplyError, OSError) as error:
        return Result(mutant, Fate.ERROR, str(error), 0.0)
    return Result(mutant, *judge(mutant, run), run.seconds)


def sick(copy: WorkingCopy, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, str]:
    """Those of these tests that do not pass on the whole product, and why: their red under a mutant would mean nothing.

    All in one run; if that is not green, file by file, so that one bad file does not hide the others.
    """
    whole = run_tests(copy, sorted(nodes), timeout_s=timeout_s)
    if whole.code == _PASSED:
        return {}
    found: dict[str, str] = {}
    files: dict[str, list[str]] = {}
    for node in sorted(nodes):
        files.setdefault(node.partition("::")[0], []).append(node)
    for wanted in files.values():
        run = run_tests(copy, wanted, timeout_s=timeout_s)
        if run.code == _FAILED and run.failures:
            wrong = {node: f.error for f in run.failures for node in wanted if is_of(f.test, node)}
        else:
            wrong = {} if run.code == _PASSED else dict.fromkeys(wanted, f"pytest: {run.code}:\n{_end_of(run.output)}")
        found.update(wrong)
    return found


def is_of(test: str, node: str) -> bool:
    """Whether a test is the one that a node id names, or one of its parameters."""
    return test == node or test.startswith((f"{node}[", f"{node}::"))


def _is_named(failure: Failure, name: str) -> bool:
    return bool(name) and failure.error.startswith(f"{name}:")


def _ended(process: subprocess.Popen[str]) -> str:
    """As Ctrl-C would, so that fixtures clear up; by force if that does not help."""
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=_LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return output


def _end_of(output: str, *, lines: int = 30) -> str:
    return "\n".join(output.splitlines()[-lines:])
