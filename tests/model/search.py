"""Breadth first through every state that can be reached; the first violation comes with a shortest way to it."""

import time
from dataclasses import dataclass, field

from tests.model.properties import Violation
from tests.model.stage import Move, State
from tests.model.world import World

STATES_MAX = 20_000_000


@dataclass
class Result:
    """What an exploration found. `trace`: the way to the violation, empty without one."""

    states: int
    steps: int
    seconds: float
    violation: Violation | None = None
    trace: list[Move] = field(default_factory=list)


def explore(world: World, *, states_max: int = STATES_MAX) -> Result:
    """Every reachable state, or the way to a violation.

    Raises:
        MemoryError: there are more than `states_max` states.
    """
    began = time.perf_counter()
    before: dict[State, State | None] = {world.first: None}
    layer, steps = [world.first], 0
    while layer:
        following: list[State] = []
        for state in layer:
            for move in world.moves(state):
                steps += 1
                after = move.state
                if after in before and move.violation is None:
                    continue
                violation = move.violation or world.judge(after)
                if violation is not None:
                    trace = [*_way(world, before, state), move]
                    return Result(len(before), steps, time.perf_counter() - began, violation, trace)
                before[after] = state
                following.append(after)
        if len(before) > states_max:
            raise MemoryError(f"more than {states_max} states")
        layer = following
    return Result(len(before), steps, time.perf_counter() - began)


def _way(world: World, before: dict[State, State | None], state: State) -> list[Move]:
    """The moves from the beginning to a state."""
    moves: list[Move] = []
    while (earlier := before[state]) is not None:
        moves.append(next(move for move in world.moves(earlier) if move.state == state))
        state = earlier
    return moves[::-1]
