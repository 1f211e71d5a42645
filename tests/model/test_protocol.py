"""No state that can be reached within the bounds breaks a promise; docs/MODEL.md tells what is modelled."""

import pytest

from tests.model.bounds import Suite
from tests.model.conftest import Explore
from tests.model.suites import SMALL
from tests.model.telling import told

pytestmark = pytest.mark.timeout(3600)  # a large one takes minutes on a busy machine


@pytest.mark.rule(
    "P1", "P2", "P3", "P6", "R1", "R2", "R3", "R4", "R5", "O1", "O2", "W1", "W2", "W3", "K2", "I1", "I2", "I3", "L4"
)
def test_no_promise_breaks(suite: Suite, explored: Explore) -> None:
    """Every state that the product's flows, relay and writer can reach with these faults keeps all promises, and relay
    and writer come to rest from it, with Redis and the tables in agreement."""
    world, result = explored(suite)

    assert result.violation is None, told(suite.name, result, world)


def test_the_flows_are_taken_apart_rightly(suite: Suite, explored: Explore) -> None:
    """Two ways to the same place of a flow go on alike, whatever comes next: nothing was left out of its state."""
    world, _ = explored(suite)

    assert world.automata.doubtful_merges == 0


def test_what_the_suites_are_about_happens(explored: Explore) -> None:
    """A change is refused for each reason there is, leases are held, results repeated: the bounds leave room for it."""
    words = {
        type(world.automata.replies.items[reply]).__name__
        for world, _ in map(explored, SMALL)
        for _, reply in world.redis_pairs.values()
    }
    ends = {
        end.error or type(end.value).__name__
        for world, _ in map(explored, SMALL)
        for end in world.automata.end_of
        if end is not None
    }

    assert words >= {"Done", "Late", "Conflict", "LeaseNeeded", "Present", "Leased", "Held", "Link", "Intent"}
    assert ends >= {
        "Link",
        "Found",
        "Aborted",
        "AlreadyExists",
        "FailedPrecondition",
        "NotFound",
        "Unavailable",
        "tuple",
    }
