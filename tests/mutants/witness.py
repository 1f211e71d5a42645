"""A pytest plugin: writes down how each test went, and that the product came from the copy.

`pytest -p tests.mutants.witness`, with the file's name in LINKMESH_MUTANTS_WITNESS. A test that fails in its set-up or
its clearing up says nothing about a safeguard; only its own body does.
"""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from tests.mutants.working_copy import PACKAGES

VARIABLE = "LINKMESH_MUTANTS_WITNESS"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuses to run on packages of which the copy has its own: such a run would prove nothing."""
    held = [path.name for path in session.config.rootpath.iterdir()]
    for name in (name for name in PACKAGES if name in held):
        spec = importlib.util.find_spec(name)
        found = [] if spec is None else [*(spec.submodule_search_locations or []), spec.origin or ""]
        if not any(Path(place).is_relative_to(session.config.rootpath) for place in found if place):
            raise pytest.UsageError(f"{name} is imported from {found}, not from the copy")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """One line for each test whose own body failed. Returns nothing, so that pytest makes its report as always."""
    if call.when != "call" or call.excinfo is None or isinstance(call.excinfo.value, pytest.skip.Exception):
        return
    error = call.excinfo.value
    cause = _first_of(error)
    failure = {"test": item.nodeid, "asserted": is_assertion(error), "error": f"{type(cause).__name__}: {cause}"[:300]}
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(failure) + "\n")


def is_assertion(error: BaseException) -> bool:
    """Whether a test said no, rather than that something broke under it; of a group one such is enough."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_assertion(member) for member in error.exceptions)
    if isinstance(error, pytest.fail.Exception):
        return "Timeout" not in str(error)  # pytest-timeout speaks through the same exception
    return isinstance(error, AssertionError)


def _first_of(error: BaseException) -> BaseException:
    return _first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
