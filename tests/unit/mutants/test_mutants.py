"""Mutants that fit today's product, and a runner that calls only the dead dead."""

import ast
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.__main__ import line_of, summary_of
from tests.mutants.catalogue import ALL
from tests.mutants.mutant import DoesNotApplyError, Edit, Mutant
from tests.mutants.trial import Failure, Fate, Result, Run, is_of, judge, run_tests, sick, tried
from tests.mutants.working_copy import ROOT, WorkingCopy, edited

NODE = "tests/test_door.py::test_a_locked_door_stays_shut"


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_product_as_it_is(mutant: Mutant) -> None:
    """Whoever changes a safeguard's text learns here, in milliseconds, that its mutant has to follow."""
    texts = {edit.file: (ROOT / edit.file).read_text("utf-8") for edit in mutant.edits}

    assert edited(mutant, texts) != texts
    assert not any(edit.file.startswith("tests/") for edit in mutant.edits), (
        "a mutant breaks the product, not its tests"
    )


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_killers_of_a_mutant_exist(mutant: Mutant) -> None:
    """A mutant names real tests: files that are there, with functions of these names."""
    assert mutant.killed_by
    for node in mutant.killed_by:
        file, _, rest = node.partition("::")
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        names = {item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef)}
        assert rest.partition("[")[0] in names, node


def test_names_are_unique_and_reasons_are_given() -> None:
    """The name is how a person asks for one, the reason is why it is there, the rule is what it is about."""
    assert not [name for name, count in Counter(mutant.name for mutant in ALL).items() if count > 1]
    rules = (ROOT / "docs" / "PROTOCOLS.md").read_text("utf-8")
    for mutant in ALL:
        assert mutant.why, mutant.name
        assert f"- **{mutant.rule}**" in rules, f"{mutant.name} is about a rule that does not exist"


@pytest.mark.parametrize(
    ("text", "new"), [("a b", "c"), ("x x", "c"), ("x", "x")], ids=["absent", "twice", "no change"]
)
def test_an_edit_that_does_not_fit_is_an_error(text: str, new: str) -> None:
    """It must stand there exactly once: otherwise the mutant would be the product itself, or something unheard of."""
    with pytest.raises(DoesNotApplyError):
        Edit(file="f", old="x", new=new).applied_to(text)


def test_an_edit_that_makes_no_python_is_an_error() -> None:
    """Code that cannot be read turns every test red, and proves nothing."""
    broken = door(Edit(file="door.py", old="return", new="return return"))

    with pytest.raises(DoesNotApplyError):
        edited(broken, {"door.py": "def f():\n    return 1\n"})


def door(*edits: Edit, killed_by: tuple[str, ...] = (NODE,), timeout_s: float = 30.0) -> Mutant:
    """A mutant of the little product below."""
    return Mutant(
        name="open-door", rule="P1", why="anybody comes in", edits=edits, killed_by=killed_by, timeout_s=timeout_s
    )


def run(*failures: Failure, code: int | None) -> Run:
    return Run(code, failures, "the output", 0.1)


SAID_NO = Failure(f"{NODE}[oak]", asserted=True, error="AssertionError: it is open")
BROKE = Failure(NODE, asserted=False, error="KeyError: 'door'")


@pytest.mark.parametrize(
    ("ended", "fate"),
    [
        (run(SAID_NO, code=1), Fate.KILLED),
        (run(code=0), Fate.SURVIVED),
        (run(code=1), Fate.SURVIVED),
        (run(Failure("tests/another.py::test", asserted=True, error=""), code=1), Fate.SURVIVED),
        (run(BROKE, code=1), Fate.ERROR),
        (run(SAID_NO, code=2), Fate.ERROR),
        (run(code=4), Fate.ERROR),
        (run(code=5), Fate.ERROR),
        (run(SAID_NO, code=None), Fate.TIMED_OUT),
    ],
    ids=[
        "a parameter of the killer said no",
        "all passed",
        "a fixture failed",
        "another test said no",
        "the killer broke",
        "collection failed",
        "no such test",
        "nothing collected",
        "no end",
    ],
)
def test_only_a_killer_that_said_no_kills(ended: Run, fate: Fate) -> None:
    """Red is not enough: it must be the named test, in its own body, by an assertion."""
    assert judge(door(), ended)[0] is fate


def test_an_error_kills_only_where_it_is_declared() -> None:
    """Some safeguards show as an error that the product raises; then the mutant names it."""
    mutant = Mutant(name="m", rule="P1", why="", edits=(), killed_by=(NODE,), dies_of="KeyError")

    assert judge(mutant, run(BROKE, code=1))[0] is Fate.KILLED


def test_every_killer_must_say_no() -> None:
    """Two are named because both prove the safeguard: one that is silent is a find."""
    both = door(killed_by=(NODE, "tests/test_door.py::test_another"))

    assert judge(both, run(SAID_NO, code=1))[0] is Fate.SURVIVED


def test_a_node_names_its_parameters_and_no_other_test() -> None:
    """`a::test` is `a::test[x]`, too, but never `a::test_more`."""
    assert is_of("a.py::test[x]", "a.py::test")
    assert is_of("a.py::test[x]", "a.py::test[x]")
    assert not is_of("a.py::test_more", "a.py::test")
    assert not is_of("a.py::test[y]", "a.py::test[x]")


def test_what_is_told_of_a_mutant() -> None:
    """One line each, and a sum that hides nothing."""
    results = [Result(door(), fate, NODE, 2.14) for fate in (Fate.KILLED, Fate.KILLED, Fate.SURVIVED, Fate.ERROR)]

    assert line_of(results[0]).split() == ["killed", "open-door", "P1", NODE, "2.1", "s"]
    assert summary_of(results) == "mutants 4, killed 2, survived 1, without a verdict 1"
    assert summary_of(results[:2]) == "mutants 2, killed 2, survived 0"


@pytest.fixture
def little_product(tmp_path: Path) -> WorkingCopy:
    """A product of one function with its test, in a folder of its own."""
    files = {
        "pytest.ini": "[pytest]",
        "door.py": """
            def comes_in(key: str) -> bool:
                return key == "right"
        """,
        "tests/test_door.py": """
            import time
            import door

            def test_a_locked_door_stays_shut():
                assert not door.comes_in("wrong")

            def test_a_door_opens():
                assert door.comes_in("right")

            def test_for_ever():
                while door.comes_in("wrong"):
                    time.sleep(0.01)
        """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return WorkingCopy(tmp_path)


def test_a_runner_tells_the_dead_from_the_living(little_product: WorkingCopy) -> None:
    """A broken safeguard dies, a broken nothing survives, an endless one times out; the copy is mended each time."""
    whole = (little_product.folder / "door.py").read_text()
    broken = Edit(file="door.py", old='key == "right"', new="True")
    harmless = Edit(file="door.py", old="key: str", new="key: object")

    assert not sick(little_product, [NODE, "tests/test_door.py::test_for_ever"], timeout_s=30)
    assert tried(door(broken), little_product).fate is Fate.KILLED
    assert tried(door(harmless), little_product).fate is Fate.SURVIVED
    endless = door(broken, killed_by=("tests/test_door.py::test_for_ever",), timeout_s=3)
    assert tried(endless, little_product).fate is Fate.TIMED_OUT
    assert tried(door(Edit(file="door.py", old="nowhere", new="")), little_product).fate is Fate.ERROR

    assert (little_product.folder / "door.py").read_text() == whole
    assert run_tests(little_product, [NODE], timeout_s=30).code == 0


def test_a_killer_that_is_red_anyway_is_found(little_product: WorkingCopy) -> None:
    """A test that fails without any mutant, and one that is not there, kill nothing; the good one beside them may."""
    (little_product.folder / "tests" / "test_bad.py").write_text("def test_red():\n    assert not 'red'\n")

    found = sick(little_product, [NODE, "tests/test_bad.py::test_red", "tests/test_none.py::test"], timeout_s=30)

    assert set(found) == {"tests/test_bad.py::test_red", "tests/test_none.py::test"}
