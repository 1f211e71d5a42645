"""A coroutine taken apart at its calls is the coroutine: small ones, looked at from outside."""

from collections.abc import Callable

import pytest

from chassis.errors import Unavailable
from tests.model.automaton import Automata, Call, Ended, Fault, Program, Remote, Work

PORT = Remote("port")
READY, BUSY = "ready", "busy"


def program(begin: Callable[[], Work]) -> Program:
    return Program("a program", begin)


def call_at(automata: Automata, node: int) -> Call:
    found: Call = automata.calls.items[automata.call_of[node]]
    return found


def after(automata: Automata, node: int, *replies: object) -> int:
    for reply in replies:
        node = automata.advance(node, automata.replies.id_of(reply))
    return node


def test_each_reply_leads_on_to_the_next_call_or_the_end() -> None:
    """A node is the call that waits, with its arguments, or how it ended."""

    async def adds() -> int:
        first: int = await PORT.first()
        second: int = await PORT.second(first, twice=True)
        return first + second

    automata = Automata()
    start = automata.start(program(adds))

    assert call_at(automata, start) == Call("port", "first")
    assert call_at(automata, after(automata, start, 2)) == Call("port", "second", (2,), (("twice", True),))
    assert automata.end_of[after(automata, start, 2, 3)] == Ended(5)


def test_a_loop_comes_back_to_where_it_was_and_gives_up_at_last() -> None:
    """The rounds of a loop are no state; that they end is found by outlasting it."""

    async def polls() -> str:
        for _ in range(9):
            if await PORT.state() == READY:
                return "ready"
        return "gave up"

    automata = Automata()
    start = automata.start(program(polls))
    once = after(automata, start, BUSY)

    assert after(automata, once, BUSY) == once
    assert automata.end_of[after(automata, once, READY)] == Ended("ready")
    assert automata.end_of[automata.outlast(start, (automata.replies.id_of(BUSY),))] == Ended("gave up")
    assert automata.doubtful_merges == 0


def test_what_a_variable_holds_is_state() -> None:
    """Two ways to one place with different variables are two nodes, also behind a context manager's or a caller's."""

    async def remembers(told: object) -> object:
        await PORT.something_else()
        await PORT.something_else()
        return told

    async def asks() -> object:
        return await remembers(await PORT.first())

    automata = Automata()
    start = automata.start(program(asks))
    ways = [after(automata, start, number, None, None) for number in (1, 2)]

    assert [automata.end_of[node] for node in ways] == [Ended(1), Ended(2)]


def test_a_fault_is_thrown_where_the_call_waits() -> None:
    """What a port raises may be caught; if not, it is how the program ends."""

    async def tries() -> str:
        try:
            await PORT.first()
        except Unavailable as exc:
            return exc.reason
        await PORT.second()
        return "unreached"

    automata = Automata()
    start = automata.start(program(tries))
    second = after(automata, start, None)

    assert automata.end_of[after(automata, start, Fault("away"))] == Ended("away")
    assert automata.end_of[after(automata, second, Fault("gone"))] == Ended(None, "Unavailable", "gone")


def test_state_outside_of_variables_is_noticed() -> None:
    """A program that keeps something where nobody looks goes on in two ways from one node; that is counted."""

    class Drawer:
        kept: object = None

    drawer = Drawer()

    async def hides() -> object:
        drawer.kept = await PORT.first()
        await PORT.something_else()
        await PORT.something_else()
        return drawer.kept

    automata = Automata()
    start = automata.start(program(hides))
    places = [after(automata, start, number, None) for number in (1, 2)]
    after(automata, places[0], None)

    assert places[0] == places[1], "it hides indeed"
    assert automata.doubtful_merges > 0


@pytest.mark.parametrize("first", [True, 1])
def test_true_is_not_one(first: object) -> None:
    """Replies are told apart by their type as well."""
    automata = Automata()
    other = 1 if first is True else True

    assert automata.replies.id_of(first) != automata.replies.id_of(other)
