"""The model can fail: each safeguard that is taken out of the protocol breaks a promise somewhere."""

import pytest

from tests.model.mutants import MUTANTS, Mutant
from tests.model.search import explore
from tests.model.suites import SMALL
from tests.model.telling import told


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
@pytest.mark.rule("P1", "P2", "P3", "P6", "R1", "R2", "R3", "R4", "R5", "O1", "W1", "W2", "K2", "I1", "I2", "I3", "L4")
def test_without_this_safeguard_a_promise_breaks(mutant: Mutant) -> None:
    """The suite in which the safeguard matters finds a way to a violation, and tells it step by step."""
    suite = next(suite for suite in SMALL if suite.name == mutant.suite)
    world = mutant.on(suite)

    result = explore(world)

    text = told(mutant.name, result, world)
    assert result.violation is not None, text
    assert result.violation.rule == mutant.breaks, text
    assert len(text.splitlines()) == len(result.trace) + 1, "the way is told"
